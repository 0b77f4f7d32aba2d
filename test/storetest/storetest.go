// Package storetest fills databases for tests and looks into them, over the store's
// exported names and over SQL, as a person with the sqlite3 program would. Its cipher is
// written apart from the server's: each must open what the other sealed.
package storetest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"database/sql"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"homeroom/store"
)

// forEver is the end of what does not end.
const forEver = math.MaxInt64

// aesCipher is AES-256-GCM with random nonces.
type aesCipher struct{ aead cipher.AEAD }

// Cipher derives the cipher for one purpose from a secret (docs/ARCHITECTURE.md, the store).
func Cipher(secret []byte, purpose string) (store.Cipher, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "homeroom 1 "+purpose, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return aesCipher{aead}, err
}

func (c aesCipher) Seal(dst, clear, place []byte) []byte { return c.aead.Seal(dst, nil, clear, place) }

func (c aesCipher) Open(sealed, place []byte) ([]byte, error) {
	return c.aead.Open(sealed[:0], nil, sealed, place)
}

// Values fills in what a new database lacks.
func Values(v *store.Values) {
	if len(v.Secret) == 0 {
		v.Rounds, v.Secret = 16, []byte("secret")
	}
}

// Clock goes on from what was saved.
func Clock(saved, _ int64) store.Clock {
	began := time.Now()
	return store.Clock{
		Now:  func() int64 { return saved + time.Since(began).Milliseconds() },
		Wall: func() int64 { return time.Now().UnixMilli() },
	}
}

// In is the options for a store in a folder, in commit mode, with the key beside it.
func In(t testing.TB, folder string) store.Options {
	return store.Options{
		Folder: folder, Key: store.KeySource{Path: filepath.Join(folder, store.KeyFile), Derive: Cipher},
		Readers: 2, Fill: Values, Clock: Clock,
		Lost: func(r store.Record) { t.Errorf("%s %d was acknowledged and is lost", r.Kind, r.ID) },
	}
}

// Options is In, in a fresh folder.
func Options(t testing.TB) store.Options { return In(t, t.TempDir()) }

// Fill makes a store with some of everything in it, and returns what it holds.
func Fill(t testing.TB, o store.Options, messages int) []store.Record {
	t.Helper()
	quick := o
	quick.Periodic = true
	st, err := store.OpenSQLite(quick)
	if err != nil {
		t.Fatal(err)
	}
	Add(t, st, store.Record{Kind: store.Account, Head: store.Pack("Alice", "alice"), Body: store.Pack("16:c2FsdA==:c3RvcmVk:c2VydmVy", "Alice Example", "alice@example.org")})
	Add(t, st, store.Record{Kind: store.Room, Ends: forEver, Head: store.Pack("den", "den", "", "anon")})
	group := Add(t, st, store.Record{Kind: store.Group, Ends: forEver, Head: store.Pack("talk", "talk", "", "anon", "0")})
	AddMessages(t, st, messages, func(i int) store.Record {
		return MessageRecord(group, 0, fmt.Sprintf("message %d %s", i, strings.Repeat("text ", i%700)))
	})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	all := Records(t, o.Folder, o.Key)
	if len(all) != messages+3 {
		t.Fatalf("%d records are stored, want %d", len(all), messages+3)
	}
	return all
}

// AddMessages stores so many messages, in order. In periodic mode that is quick.
func AddMessages(t testing.TB, st store.Store, n int, message func(i int) store.Record) {
	t.Helper()
	for i := range n {
		Add(t, st, message(i))
	}
}

// Records is every record of a data folder, opened with its key; the folder is not changed.
func Records(t testing.TB, folder string, key store.KeySource) (all []store.Record) {
	t.Helper()
	o := In(t, CopyDatabase(t, folder))
	o.Key = key
	st, err := store.OpenSQLite(o)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	keep := func(r store.Record) error {
		if r.Kind == store.Account {
			whole, err := st.Get(r.Kind, r.ID)
			r.Body = whole.Body
			if err != nil {
				return err
			}
		}
		r.Head = bytes.Clone(r.Head)
		all = append(all, r)
		return nil
	}
	for _, k := range []store.Kind{store.Account, store.Room, store.Group} {
		if err := st.Load(k, keep); err != nil {
			t.Errorf("%ss: %v", k, err)
		}
	}
	for _, id := range messageIDs(t, folder) {
		r, err := st.Get(store.Message, id)
		if err != nil {
			t.Errorf("message %d: %v", id, err)
		}
		all = append(all, r)
	}
	if err := st.Load(store.Ban, keep); err != nil {
		t.Errorf("bans: %v", err)
	}
	return all
}

// messageIDs is the numbers of all messages.
func messageIDs(t testing.TB, folder string) (ids []int64) {
	t.Helper()
	db := OpenBeside(t, folder)
	defer db.Close()
	rows, err := db.Query("SELECT id FROM messages ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// WantWhole expects a database file that nobody uses to be whole.
func WantWhole(t testing.TB, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var result string
	if err := db.QueryRow("PRAGMA integrity_check(1)").Scan(&result); err != nil || result != "ok" {
		t.Errorf("%s: %q, %v", path, result, err)
	}
}

// WantRotated expects everything to be sealed with the key of that number, and no other
// key to be left.
func WantRotated(t testing.TB, o store.Options, number uint32) {
	t.Helper()
	keys, err := store.Keys(filepath.Join(o.Folder, store.DatabaseFile))
	if err != nil || len(keys) != 1 || keys[0].Number != number {
		t.Errorf("the database says of its keys: %+v (%v), want only number %d", keys, err, number)
	}
	db := OpenBeside(t, o.Folder)
	defer db.Close()
	want := binary.BigEndian.AppendUint32([]byte{2}, number)
	for _, column := range []string{"accounts.head", "accounts.body", "rooms.head", "groups.head", "messages.head", "messages.body", "bans.head"} {
		table, name, _ := strings.Cut(column, ".")
		var others int
		if err := db.QueryRow("SELECT count(*) FROM "+table+" WHERE substr("+name+", 1, 5) != ?", want).Scan(&others); err != nil || others > 0 {
			t.Errorf("%d of %s are not sealed with key %d (%v)", others, column, number, err)
		}
	}
}

var canaries = []string{"canary", "Alice", "alice", "SCRAM-SHA", "The Den", "example.org"}

// OpenBeside opens the database of a folder on a connection of the test's own,
// as a person with the sqlite3 program would.
func OpenBeside(t testing.TB, folder string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(folder, store.DatabaseFile)+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// CountRows counts what a table holds, over a connection of its own.
func CountRows(t testing.TB, folder, table string) (n int) {
	t.Helper()
	db := OpenBeside(t, folder)
	defer db.Close()
	if err := db.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
		t.Fatalf("counting %s: %v", table, err)
	}
	return n
}

// New opens a store and closes it when the test ends.
func New(t testing.TB, o store.Options) *store.SQLite {
	t.Helper()
	st, err := store.OpenSQLite(o)
	if err != nil {
		t.Fatalf("opening the store: %v", err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return st
}

// Add stores a record and returns its number.
func Add(t testing.TB, st store.Store, r store.Record) int64 {
	t.Helper()
	if err := st.Add(&r); err != nil {
		t.Fatalf("storing a %s: %v", r.Kind, err)
	}
	return r.ID
}

// MessageRecord is a message's record.
func MessageRecord(group, parent int64, text string) store.Record {
	return store.Record{Kind: store.Message, Group: group, Parent: parent, Ends: forEver, Head: store.Pack(text, "alice"), Body: store.Pack(text)}
}

// Fingerprint is the size, the time of change and the content of every file of
// a folder; but for the -shm, which is memory that connections share.
func Fingerprint(t testing.TB, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "-shm") {
			continue
		}
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = fmt.Sprintf("%d bytes, %v, %x", len(content), info.ModTime(), sha256.Sum256(content))
	}
	return files
}

// WantSame expects a folder as it was.
func WantSame(t testing.TB, before, after map[string]string) {
	t.Helper()
	for name, was := range before {
		if after[name] != was {
			t.Errorf("%s was %s, is %s", name, was, after[name])
		}
	}
	for name := range after {
		if before[name] == "" {
			t.Errorf("%s is new: %s", name, after[name])
		}
	}
}

// CopyDatabase copies a database as it is at this moment, as a power cut would
// leave it.
func CopyDatabase(t testing.TB, from string) (to string) {
	t.Helper()
	to = t.TempDir()
	for _, name := range []string{store.DatabaseFile, store.DatabaseFile + "-wal"} {
		content, err := os.ReadFile(filepath.Join(from, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// MustExec runs SQL that must work.
func MustExec(t testing.TB, db *sql.DB, text string, args ...any) {
	t.Helper()
	if _, err := db.Exec(text, args...); err != nil {
		t.Fatalf("%.60s: %v", text, err)
	}
}

// Filled makes a closed store with some of everything in it, and returns
// what it holds.
func Filled(t testing.TB, messages int) (o store.Options, all []store.Record) {
	t.Helper()
	o = Options(t)
	return o, Fill(t, o, messages)
}

// WantRecords expects a folder to hold these records.
func WantRecords(t testing.TB, o store.Options, want []store.Record) {
	t.Helper()
	got := Records(t, o.Folder, o.Key)
	if len(got) != len(want) {
		t.Fatalf("%d records are stored, want %d", len(got), len(want))
	}
	for i, r := range want {
		if got[i].ID != r.ID || got[i].Kind != r.Kind || !bytes.Equal(got[i].Head, r.Head) || !bytes.Equal(got[i].Body, r.Body) {
			t.Fatalf("%s %d is not what it was", r.Kind, r.ID)
		}
	}
}

// OpenOnce opens and closes a store, and returns why it could not be Records.
func OpenOnce(o store.Options) error {
	st, err := store.OpenSQLite(o)
	if err != nil {
		return err
	}
	return st.Close()
}

// BackupOf makes a backup of a folder and returns where it is.
func BackupOf(t testing.TB, folder string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "backup.db")
	if err := store.Backup(t.Context(), io.Discard, folder, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// WantOnly expects that only these files are in a folder.
func WantOnly(t testing.TB, folder string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for _, e := range entries {
		there = append(there, e.Name())
	}
	if strings.Join(there, " ") != strings.Join(names, " ") {
		t.Errorf("%s holds %q, want %q", folder, there, names)
	}
}

// FrozenSchema1 is the database as version 1 of the schema makes it, with a little of
// everything in it. It must never be changed: there are such databases.
//
//go:embed schema1.sql
var FrozenSchema1 string

// FrozenDatabase makes a database of version 1 in a fresh folder.
func FrozenDatabase(t testing.TB) (folder string) {
	t.Helper()
	folder = t.TempDir()
	db := OpenBeside(t, folder)
	defer db.Close()
	MustExec(t, db, FrozenSchema1)
	return folder
}

// FolderContent is the content of all files of a folder.
func FolderContent(t *testing.T, folder string) (all []byte) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, content...)
	}
	return all
}

// CanaryMessages counts the messages that ClearDatabase added and left.
func CanaryMessages(all []store.Record) (n int) {
	for _, r := range all {
		if r.Kind == store.Message && bytes.Contains(r.Body, []byte("canary-text")) {
			n++
		}
	}
	return n
}

// ClearDatabase makes a database of version 1, with canaries in records, in free
// space and in the log.
func ClearDatabase(t *testing.T) (folder string) {
	t.Helper()
	folder = FrozenDatabase(t)
	db := OpenBeside(t, folder)
	defer db.Close()
	random := rand.New(rand.NewPCG(1, 2))
	MustExec(t, db, "BEGIN")
	for id := 100; id < 1000; id++ {
		text := strings.Repeat("canary-text ", 1+random.IntN(800))
		MustExec(t, db, "INSERT INTO messages VALUES (?, 3, 0, 0, 9000000, ?, ?)", id, store.Pack("canary-heading", "canary"), store.Pack(text))
	}
	MustExec(t, db, "COMMIT")
	MustExec(t, db, "DELETE FROM messages WHERE id > 100 AND id % 3 = 0")
	MustExec(t, db, "PRAGMA journal_mode = WAL")
	MustExec(t, db, "UPDATE messages SET body = zeroblob(0) || body WHERE id % 5 = 0")
	killed := CopyDatabase(t, folder)
	for _, name := range []string{store.DatabaseFile, store.DatabaseFile + "-wal"} {
		if content, err := os.ReadFile(filepath.Join(killed, name)); err != nil || !bytes.Contains(content, []byte("canary-text")) {
			t.Fatalf("%s has no canary; this test would find nothing (%v)", name, err)
		}
	}
	return killed
}

// WantNoCanary expects that nothing of what users wrote is in a folder in clear.
func WantNoCanary(t *testing.T, folder string) {
	t.Helper()
	stored := FolderContent(t, folder)
	for _, canary := range canaries {
		if at := bytes.Index(stored, []byte(canary)); at >= 0 {
			t.Errorf("%q is in the folder: %q", canary, stored[max(0, at-20):min(len(stored), at+40)])
		}
	}
}
