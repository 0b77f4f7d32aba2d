package main

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
func answers(t testing.TB, typed ...string) asker {
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
func openOnce(o storeOptions) error {
	st, err := openStore(o)
	if err != nil {
		return err
	}
	return st.close()
}

// wantKeyRefused expects that a store does not open, for a reason that is said in
// one line, and that nothing changes.
func wantKeyRefused(t *testing.T, name string, o storeOptions, reason string) {
	t.Helper()
	before := fingerprint(t, o.folder)
	err := openOnce(o)
	if err == nil {
		t.Errorf("%s: it opens", name)
		return
	}
	if text := err.Error(); !strings.Contains(text, reason) || strings.Contains(text, "\n") {
		t.Errorf("%s: %q, want %q in it", name, text, reason)
	}
	wantSame(t, before, fingerprint(t, o.folder))
}

// TestKeyFile: the first start makes a key, the next ones use it; one that is
// missing, wrong, or for others to read stops the start.
func TestKeyFile(t *testing.T) {
	t.Parallel()
	o := commitStore(t)
	path := o.key.path
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
	put(randomBytes(masterBytes), 0o600)
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
	o.key.path = filepath.Join(o.folder, "no", "folder", keyFile)
	if err := openOnce(o); err == nil || !strings.Contains(err.Error(), "cannot write the key") {
		t.Errorf("a key in no folder: %v", err)
	}
	o.key.path = filepath.Join(o.folder, "empty")
	if err := os.WriteFile(o.key.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantKeyRefused(t, "an empty key", o, "is no key")
	if rows, err := readKeyRows(filepath.Join(o.folder, databaseFile)); err != nil || len(rows) > 0 {
		t.Errorf("keys are noted: %v (%v)", rows, err)
	}
}

// TestKeySource: which of the places a key comes from. (It is not parallel: it
// changes the environment.)
func TestKeySource(t *testing.T) {
	credentials := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	there := filepath.Join(credentials, keyFile)
	if src := newKeySource("", "data", nil); src.path != filepath.Join("data", keyFile) || src.fixed {
		t.Errorf("without a credential: %+v", src)
	}
	if err := os.WriteFile(there, randomBytes(masterBytes), 0o440); err != nil {
		t.Fatal(err)
	}
	src := newKeySource("", "data", nil)
	if src.path != there || !src.fixed {
		t.Errorf("with a credential: %+v", src)
	}
	o := commitStore(t)
	o.key = src
	if err := errors.Join(openOnce(o), openOnce(o)); err != nil {
		t.Errorf("a credential, which systemd gives its group: %v", err)
	}
	if src := newKeySource("/etc/key", "data", nil); src.path != "/etc/key" || src.fixed {
		t.Errorf("a file that the settings name: %+v", src)
	}
	if src := newKeySource("ask", "data", nil); src.path != "" || src.cost != usualCost {
		t.Errorf("a passphrase: %+v", src)
	}
}

// TestPassphrase: the first start asks for a new one, twice, the next ones until
// it is right; nothing that is refused changes anything.
func TestPassphrase(t *testing.T) {
	t.Parallel()
	const right = "four words of mine"
	o := commitStore(t)
	ask := func(typed ...string) storeOptions {
		o.key = keySource{ask: answers(t, typed...), cost: cheapCost}
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
	o.key = keySource{cost: cheapCost}
	wantKeyRefused(t, "no terminal", o, "there is no terminal")
	o.key = keySource{path: filepath.Join(t.TempDir(), keyFile)}
	wantKeyRefused(t, "a file", o, "is sealed with a passphrase")
	db := openBeside(t, o.folder)
	mustExec(t, db, "UPDATE keys SET memory = 1 << 30")
	db.Close()
	wantKeyRefused(t, "a cost that no machine has", ask(), "is damaged")
	file := commitStore(t)
	if err := openOnce(file); err != nil {
		t.Fatal(err)
	}
	file.key = ask().key
	wantKeyRefused(t, "a passphrase for a file", file, "is sealed with a key from a file")
}

// TestPassphraseCost: what a passphrase really costs is what RFC 9106 says that
// it should.
func TestPassphraseCost(t *testing.T) {
	t.Parallel()
	o := commitStore(t)
	o.key = newKeySource(askForKey, o.folder, answers(t, "four words of mine", "four words of mine", "four words of mine"))
	if err := errors.Join(openOnce(o), openOnce(o)); err != nil {
		t.Fatal(err)
	}
	rows, err := readKeyRows(filepath.Join(o.folder, databaseFile))
	if err != nil || len(rows) != 1 || rows[0].cost != (argonCost{3, 64 << 10, 4}) || len(rows[0].salt) != saltBytes {
		t.Errorf("the database says %+v (%v)", rows, err)
	}
}
