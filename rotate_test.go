package main

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
func rotationStore(t testing.TB, messages int) (o storeOptions, all []record) {
	t.Helper()
	o = commitStore(t)
	return o, fillStore(t, o, messages)
}

// fillStore makes a store with some of everything in it, and returns what it
// holds.
func fillStore(t testing.TB, o storeOptions, messages int) []record {
	t.Helper()
	st, err := openStore(o)
	if err != nil {
		t.Fatal(err)
	}
	addRecord(t, st, accountRecord(name{"Alice", "alice"}, &accountBody{verifier: &verifier{}, realName: "Alice Example", email: "alice@example.org"}))
	addRecord(t, st, record{kind: kindRoom, ends: never, head: packFields("den", "den", "", "anon")})
	group := addRecord(t, st, record{kind: kindGroup, ends: never, head: packFields("talk", "talk", "", "anon", "0")})
	changes := make([]*change, messages)
	for i := range changes {
		changes[i] = &change{rec: messageRecord(group, 0, fmt.Sprintf("message %d %s", i, strings.Repeat("text ", i%700)))}
	}
	if err := errors.Join(append(putTogether(st, changes...), st.close())...); err != nil {
		t.Fatal(err)
	}
	all := opened(t, o.folder, o.key)
	if len(all) != messages+3 {
		t.Fatalf("%d records are stored, want %d", len(all), messages+3)
	}
	return all
}

// wantRecords expects a folder to hold these records.
func wantRecords(t testing.TB, o storeOptions, want []record) {
	t.Helper()
	got := opened(t, o.folder, o.key)
	if len(got) != len(want) {
		t.Fatalf("%d records are stored, want %d", len(got), len(want))
	}
	for i, r := range want {
		if got[i].id != r.id || got[i].kind != r.kind || !bytes.Equal(got[i].head, r.head) || !bytes.Equal(got[i].body, r.body) {
			t.Fatalf("%s %d is not what it was", r.kind, r.id)
		}
	}
}

// wantRotated expects that all is sealed with one key, which has this number, and
// nothing that was sealed with another is left.
func wantRotated(t testing.TB, o storeOptions, number uint32) {
	t.Helper()
	db := openBeside(t, o.folder)
	defer db.Close()
	rows, err := keyRowsOf(db)
	if err != nil || len(rows) != 1 || rows[0].number != number || !rows[0].clean {
		t.Errorf("the database says of its keys: %+v (%v), want only number %d", rows, err, number)
	}
	for k := range kinds {
		err := eachPage(db, k, func(page []record) error {
			for _, r := range page {
				if !k.hasBody() {
					r.body = nil
				}
				if !r.sealedWith(number) {
					return fmt.Errorf("%s %d is not sealed with key %d", k, r.id, number)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if o.key.path == "" {
		return
	}
	if _, err := os.Stat(o.key.next()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left (%v)", o.key.next(), err)
	}
}

// TestRotate: all is sealed with a new key, the old one opens nothing any more
// and is kept, and the server goes on with the new one.
func TestRotate(t *testing.T) {
	t.Parallel()
	o, all := rotationStore(t, 500)
	old, err := os.ReadFile(o.key.path)
	if err != nil {
		t.Fatal(err)
	}
	sealed := folderContent(t, o.folder)
	for number := uint32(2); number < 4; number++ {
		var said strings.Builder
		if err := rotateKey(t.Context(), &said, o.folder, o.key, o.key); err != nil {
			t.Fatal(err)
		}
		if kept := fmt.Sprintf("%s.%d", o.key.path, number-1); !strings.Contains(said.String(), "503 records") || !strings.Contains(said.String(), kept) {
			t.Errorf("it says %q", said.String())
		}
		wantRotated(t, o, number)
		wantRecords(t, o, all)
	}
	if kept, err := os.ReadFile(o.key.path + ".1"); err != nil || !bytes.Equal(kept, old) {
		t.Errorf("the old key is not kept: %x (%v)", kept, err)
	}
	if oldHeader := []byte{sealFormat, 0, 0, 0, 1}; !bytes.Contains(sealed, oldHeader) || bytes.Count(folderContent(t, o.folder), oldHeader) > 20 {
		t.Error("what was sealed with the old key is left in free space")
	}
	now, err := os.ReadFile(o.key.path)
	if err != nil || bytes.Equal(now, old) {
		t.Fatalf("the key is the old one (%v)", err)
	}
	if err := os.WriteFile(o.key.path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	wantKeyRefused(t, "the old key", o, "is not the one")
	if err := os.WriteFile(o.key.path, now, 0o600); err != nil {
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
	file := o.key
	asked := func(typed ...string) keySource { return keySource{ask: answers(t, typed...), cost: cheapCost} }
	const first, second = "the first passphrase", "the second passphrase"
	steps := []struct {
		name             string
		from, to, proves keySource
	}{
		{"file to passphrase", file, asked(first, first), asked(first)},
		{"passphrase to another", asked(first, second, second), keySource{}, asked(second)},
		{"passphrase to file", asked(second), file, file},
	}
	for i, step := range steps {
		if step.to.path == "" && step.to.ask == nil {
			step.to = step.from
		}
		if err := rotateKey(t.Context(), io.Discard, o.folder, step.from, step.to); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		o.key = step.proves
		wantRecords(t, o, all)
		o.key.path = file.path
		wantRotated(t, o, uint32(i+2))
	}
}

// TestRotateRefuses: what cannot be changed stays as it is.
func TestRotateRefuses(t *testing.T) {
	t.Parallel()
	o, all := rotationStore(t, 5)
	refused := func(name, reason, folder string, from, to keySource) {
		t.Helper()
		err := rotateKey(t.Context(), io.Discard, folder, from, to)
		if err == nil || !strings.Contains(err.Error(), reason) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, reason)
		}
	}
	elsewhere := keySource{path: filepath.Join(t.TempDir(), keyFile)}
	refused("no database", "cannot open the database", t.TempDir(), o.key, o.key)
	refused("not sealed", "is not sealed yet", frozenDatabase(t), o.key, o.key)
	refused("no key", "is missing", o.folder, elsewhere, elsewhere)
	refused("another place", "to have the key in another place", o.folder, o.key, elsewhere)
	refused("systemd's", "only you can change", o.folder, keySource{path: o.key.path, fixed: true}, o.key)
	refused("not the same twice", "not the same", o.folder, o.key, keySource{ask: answers(t, "a passphrase, a", "a passphrase, b"), cost: cheapCost})
	lock, err := datadir.Lock(o.folder)
	if err != nil {
		t.Fatal(err)
	}
	refused("a server runs", "uses the data folder", o.folder, o.key, o.key)
	if err := errors.Join(lock.Release(), os.WriteFile(o.key.path+".1", []byte("something else"), 0o600)); err != nil {
		t.Fatal(err)
	}
	wantRotated(t, o, 1)
	refused("something in the way", "is in the way", o.folder, o.key, o.key)
	wantRecords(t, o, all)
	if err := openOnce(o); err != nil {
		t.Errorf("starting with a change of the key that has only begun: %v", err)
	}
	if err := errors.Join(os.Remove(o.key.path+".1"), rotateKey(t.Context(), io.Discard, o.folder, o.key, o.key)); err != nil {
		t.Fatal(err)
	}
	wantRotated(t, o, 2)
	wantRecords(t, o, all)
}
