package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"homeroom/datadir"
)

// rotationStore makes a closed store with some of everything in it, and returns
// what it holds.
func rotationStore(t testing.TB, messages int) (o Options, all []Record) {
	t.Helper()
	o = commitStore(t)
	return o, fillStore(t, o, messages)
}

// fillStore makes a store with some of everything in it, and returns what it
// holds.
func fillStore(t testing.TB, o Options, messages int) []Record {
	t.Helper()
	st, err := OpenSQLite(o)
	if err != nil {
		t.Fatal(err)
	}
	addRecord(t, st, Record{Kind: Account, Head: Pack("Alice", "alice"), Body: Pack("", "Alice Example", "alice@example.org")})
	addRecord(t, st, Record{Kind: Room, Ends: forEver, Head: Pack("den", "den", "", "anon")})
	group := addRecord(t, st, Record{Kind: Group, Ends: forEver, Head: Pack("talk", "talk", "", "anon", "0")})
	changes := make([]*change, messages)
	for i := range changes {
		changes[i] = &change{rec: messageRecord(group, 0, fmt.Sprintf("message %d %s", i, strings.Repeat("text ", i%700)))}
	}
	if err := errors.Join(append(putTogether(st, changes...), st.Close())...); err != nil {
		t.Fatal(err)
	}
	all := opened(t, o.Folder, o.Key)
	if len(all) != messages+3 {
		t.Fatalf("%d records are stored, want %d", len(all), messages+3)
	}
	return all
}

// wantRecords expects a folder to hold these records.
func wantRecords(t testing.TB, o Options, want []Record) {
	t.Helper()
	got := opened(t, o.Folder, o.Key)
	if len(got) != len(want) {
		t.Fatalf("%d records are stored, want %d", len(got), len(want))
	}
	for i, r := range want {
		if got[i].ID != r.ID || got[i].Kind != r.Kind || !bytes.Equal(got[i].Head, r.Head) || !bytes.Equal(got[i].Body, r.Body) {
			t.Fatalf("%s %d is not what it was", r.Kind, r.ID)
		}
	}
}

// wantRotated expects that all is sealed with one key, which has this number, and
// nothing that was sealed with another is left.
func wantRotated(t testing.TB, o Options, number uint32) {
	t.Helper()
	db := openBeside(t, o.Folder)
	defer db.Close()
	rows, err := keyRowsOf(db)
	if err != nil || len(rows) != 1 || rows[0].Number != number || !rows[0].clean {
		t.Errorf("the database says of its keys: %+v (%v), want only number %d", rows, err, number)
	}
	for k := range Kinds {
		err := eachPage(db, k, func(page []Record) error {
			for _, r := range page {
				if !k.hasBody() {
					r.Body = nil
				}
				if !r.isCurrent(number) {
					return fmt.Errorf("%s %d is not sealed with key %d", k, r.ID, number)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if o.Key.Path == "" {
		return
	}
	if _, err := os.Stat(o.Key.next()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left (%v)", o.Key.next(), err)
	}
}

// TestRotate: all is sealed with a new key, the old one opens nothing any more
// and is kept, and the server goes on with the new one.
func TestRotate(t *testing.T) {
	t.Parallel()
	o, all := rotationStore(t, 500)
	old, err := os.ReadFile(o.Key.Path)
	if err != nil {
		t.Fatal(err)
	}
	sealed := folderContent(t, o.Folder)
	for number := uint32(2); number < 4; number++ {
		var said strings.Builder
		if err := Rotate(t.Context(), &said, o.Folder, o.Key, o.Key); err != nil {
			t.Fatal(err)
		}
		if kept := fmt.Sprintf("%s.%d", o.Key.Path, number-1); !strings.Contains(said.String(), "503 records") || !strings.Contains(said.String(), kept) {
			t.Errorf("it says %q", said.String())
		}
		wantRotated(t, o, number)
		wantRecords(t, o, all)
	}
	if kept, err := os.ReadFile(o.Key.Path + ".1"); err != nil || !bytes.Equal(kept, old) {
		t.Errorf("the old key is not kept: %x (%v)", kept, err)
	}
	if oldHeader := []byte{sealFormat, 0, 0, 0, 1}; !bytes.Contains(sealed, oldHeader) || bytes.Count(folderContent(t, o.Folder), oldHeader) > 20 {
		t.Error("what was sealed with the old key is left in free space")
	}
	now, err := os.ReadFile(o.Key.Path)
	if err != nil || bytes.Equal(now, old) {
		t.Fatalf("the key is the old one (%v)", err)
	}
	if err := os.WriteFile(o.Key.Path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	wantKeyRefused(t, "the old key", o, "is not the one")
	if err := os.WriteFile(o.Key.Path, now, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := openOnce(o); err != nil {
		t.Error(err)
	}
}

// TestRotatePassphrase: a passphrase can be changed, and a file changed to a
// passphrase and back.
func TestRotatePassphrase(t *testing.T) {
	t.Parallel()
	o, all := rotationStore(t, 20)
	file := o.Key
	asked := func(typed ...string) KeySource {
		return KeySource{ask: answers(t, typed...), cost: cheapCost, Derive: testCipher}
	}
	const first, second = "the first passphrase", "the second passphrase"
	steps := []struct {
		name             string
		from, to, proves KeySource
	}{
		{"file to passphrase", file, asked(first, first), asked(first)},
		{"passphrase to another", asked(first, second, second), KeySource{}, asked(second)},
		{"passphrase to file", asked(second), file, file},
	}
	for i, step := range steps {
		if step.to.Path == "" && step.to.ask == nil {
			step.to = step.from
		}
		if err := Rotate(t.Context(), io.Discard, o.Folder, step.from, step.to); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		o.Key = step.proves
		wantRecords(t, o, all)
		o.Key.Path = file.Path
		wantRotated(t, o, uint32(i+2))
	}
}

// TestRotateRefuses: what cannot be changed stays as it is.
func TestRotateRefuses(t *testing.T) {
	t.Parallel()
	o, all := rotationStore(t, 5)
	refused := func(name, reason, folder string, from, to KeySource) {
		t.Helper()
		err := Rotate(t.Context(), io.Discard, folder, from, to)
		if err == nil || !strings.Contains(err.Error(), reason) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, reason)
		}
	}
	elsewhere := KeySource{Path: filepath.Join(t.TempDir(), KeyFile), Derive: testCipher}
	refused("no database", "cannot open the database", t.TempDir(), o.Key, o.Key)
	refused("not sealed", "is not sealed yet", frozenDatabase(t), o.Key, o.Key)
	refused("no key", "is missing", o.Folder, elsewhere, elsewhere)
	refused("another place", "to have the key in another place", o.Folder, o.Key, elsewhere)
	refused("systemd's", "only you can change", o.Folder, KeySource{Path: o.Key.Path, fixed: true, Derive: testCipher}, o.Key)
	refused("not the same twice", "not the same", o.Folder, o.Key, KeySource{ask: answers(t, "a passphrase, a", "a passphrase, b"), cost: cheapCost, Derive: testCipher})
	lock, err := datadir.Lock(o.Folder)
	if err != nil {
		t.Fatal(err)
	}
	refused("a server runs", "uses the data folder", o.Folder, o.Key, o.Key)
	if err := errors.Join(lock.Release(), os.WriteFile(o.Key.Path+".1", []byte("something else"), 0o600)); err != nil {
		t.Fatal(err)
	}
	wantRotated(t, o, 1)
	refused("something in the way", "is in the way", o.Folder, o.Key, o.Key)
	wantRecords(t, o, all)
	if err := openOnce(o); err != nil {
		t.Errorf("starting with a change of the key that has only begun: %v", err)
	}
	if err := errors.Join(os.Remove(o.Key.Path+".1"), Rotate(t.Context(), io.Discard, o.Folder, o.Key, o.Key)); err != nil {
		t.Fatal(err)
	}
	wantRotated(t, o, 2)
	wantRecords(t, o, all)
}
