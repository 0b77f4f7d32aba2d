package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// cheapCost is a passphrase's cost that tests can bear.
var cheapCost = argonCost{passes: 1, memory: 8, lanes: 1}

// answers is an asker who types these, one after the other.
func answers(t testing.TB, typed ...string) Asker {
	return func(prompt string) (string, error) {
		if len(typed) == 0 {
			t.Errorf("asked once more: %s", prompt)
			return "", errors.New("nobody is there")
		}
		answer := typed[0]
		typed = typed[1:]
		return answer, nil
	}
}

// openOnce opens and closes a store, and returns why it could not be opened.
func openOnce(o Options) error {
	st, err := OpenSQLite(o)
	if err != nil {
		return err
	}
	return st.Close()
}

// wantKeyRefused expects that a store does not open, for a reason that is said in
// one line, and that nothing changes.
func wantKeyRefused(t *testing.T, name string, o Options, reason string) {
	t.Helper()
	before := fingerprint(t, o.Folder)
	err := openOnce(o)
	if err == nil {
		t.Errorf("%s: it opens", name)
		return
	}
	if text := err.Error(); !strings.Contains(text, reason) || strings.Contains(text, "\n") {
		t.Errorf("%s: %q, want %q in it", name, text, reason)
	}
	wantSame(t, before, fingerprint(t, o.Folder))
}

// TestKeyFile: the first start makes a key, the next ones use it; one that is
// missing, wrong, or for others to read stops the start.
func TestKeyFile(t *testing.T) {
	t.Parallel()
	o := commitStore(t)
	path := o.Key.Path
	if err := openOnce(o); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(path)
	if err != nil || len(key) != masterBytes {
		t.Fatalf("the key has %d bytes (%v)", len(key), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v (%v), want 0600", info.Mode(), err)
	}
	if err := openOnce(o); err != nil {
		t.Errorf("the second start: %v", err)
	}
	put := func(content []byte, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, content, mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	put(random(masterBytes), 0o600)
	wantKeyRefused(t, "another key", o, "is not the one that the data is sealed with")
	put(key[1:], 0o600)
	wantKeyRefused(t, "a short key", o, "is no key: it must have 32 bytes and has 31")
	put(append(key, '\n'), 0o600)
	wantKeyRefused(t, "a long key", o, "is no key: it must have 32 bytes and has 33")
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o666} {
		put(key, mode)
		wantKeyRefused(t, "open to others", o, "can be read by others")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantKeyRefused(t, "no key", o, "is missing")
	put(key, 0o400)
	if err := openOnce(o); err != nil {
		t.Errorf("with its key again: %v", err)
	}
}

// TestKeyNotMade: where no key can be made, or the one that is there is none,
// nothing is sealed.
func TestKeyNotMade(t *testing.T) {
	t.Parallel()
	o := commitStore(t)
	o.Key.Path = filepath.Join(o.Folder, "no", "folder", KeyFile)
	if err := openOnce(o); err == nil || !strings.Contains(err.Error(), "cannot write the key") {
		t.Errorf("a key in no folder: %v", err)
	}
	o.Key.Path = filepath.Join(o.Folder, "empty")
	if err := os.WriteFile(o.Key.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantKeyRefused(t, "an empty key", o, "is no key")
	if rows, err := Keys(filepath.Join(o.Folder, DatabaseFile)); err != nil || len(rows) > 0 {
		t.Errorf("keys are noted: %v (%v)", rows, err)
	}
}

// TestKeySource: which of the places a key comes from. (It is not parallel: it
// changes the environment.)
func TestKeySource(t *testing.T) {
	credentials := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	there := filepath.Join(credentials, KeyFile)
	if src := NewKeySource("", "data", nil, testCipher); src.Path != filepath.Join("data", KeyFile) || src.fixed {
		t.Errorf("without a credential: %+v", src)
	}
	if err := os.WriteFile(there, random(masterBytes), 0o440); err != nil {
		t.Fatal(err)
	}
	src := NewKeySource("", "data", nil, testCipher)
	if src.Path != there || !src.fixed {
		t.Errorf("with a credential: %+v", src)
	}
	o := commitStore(t)
	o.Key = src
	if err := errors.Join(openOnce(o), openOnce(o)); err != nil {
		t.Errorf("a credential, which systemd gives its group: %v", err)
	}
	if src := NewKeySource("/etc/key", "data", nil, testCipher); src.Path != "/etc/key" || src.fixed {
		t.Errorf("a file that the settings name: %+v", src)
	}
	if src := NewKeySource("ask", "data", nil, testCipher); src.Path != "" || src.cost != usualCost {
		t.Errorf("a passphrase: %+v", src)
	}
}

// TestPassphrase: the first start asks for a new one, twice, the next ones until
// it is right; nothing that is refused changes anything.
func TestPassphrase(t *testing.T) {
	t.Parallel()
	const right = "four words of mine"
	o := commitStore(t)
	ask := func(typed ...string) Options {
		o.Key = KeySource{ask: answers(t, typed...), cost: cheapCost, Derive: testCipher}
		return o
	}
	for reason, typed := range map[string][]string{
		"must have 12 characters": {"too short"}, "are not the same": {right, right + "?"},
	} {
		if err := openOnce(ask(typed...)); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: %v, want %q", typed, err, reason)
		}
	}
	if err := openOnce(ask(right, right)); err != nil {
		t.Fatal(err)
	}
	if err := openOnce(ask("wrong", "wrong again", right)); err != nil {
		t.Errorf("right at the third try: %v", err)
	}
	wantKeyRefused(t, "wrong three times", ask("one", "two", "three"), "the passphrase is wrong")
	o.Key = KeySource{cost: cheapCost, Derive: testCipher}
	wantKeyRefused(t, "no terminal", o, "there is no terminal")
	o.Key = KeySource{Path: filepath.Join(t.TempDir(), KeyFile), Derive: testCipher}
	wantKeyRefused(t, "a file", o, "is sealed with a passphrase")
	db := openBeside(t, o.Folder)
	mustExec(t, db, "UPDATE keys SET memory = 1 << 30")
	db.Close()
	wantKeyRefused(t, "a cost that no machine has", ask(), "is damaged")
	file := commitStore(t)
	if err := openOnce(file); err != nil {
		t.Fatal(err)
	}
	file.Key = ask().Key
	wantKeyRefused(t, "a passphrase for a file", file, "is sealed with a key from a file")
}

// TestPassphraseCost: what a passphrase really costs is what RFC 9106 says that
// it should.
func TestPassphraseCost(t *testing.T) {
	t.Parallel()
	o := commitStore(t)
	o.Key = NewKeySource(askForKey, o.Folder, answers(t, "four words of mine", "four words of mine", "four words of mine"), testCipher)
	if err := errors.Join(openOnce(o), openOnce(o)); err != nil {
		t.Fatal(err)
	}
	rows, err := Keys(filepath.Join(o.Folder, DatabaseFile))
	if err != nil || len(rows) != 1 || rows[0].cost != (argonCost{3, 64 << 10, 4}) || len(rows[0].salt) != passphraseSalt {
		t.Errorf("the database says %+v (%v)", rows, err)
	}
}
