package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// openBeside opens the database of a folder on a connection of the test's own,
// as a person with the sqlite3 program would.
func openBeside(t testing.TB, folder string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(folder, DatabaseFile)+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// countRows counts what a table holds, over a connection of its own.
func countRows(t testing.TB, folder, table string) (n int) {
	t.Helper()
	db := openBeside(t, folder)
	defer db.Close()
	if err := db.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
		t.Fatalf("counting %s: %v", table, err)
	}
	return n
}

// testValues fills in what a new database lacks.
func testValues(v *Values) { v.Rounds, v.Secret = 16, []byte("secret") }

// testClock goes on from what was saved.
func testClock(saved, _ int64) Clock {
	began := time.Now()
	return Clock{
		func() int64 { return saved + time.Since(began).Milliseconds() },
		func() int64 { return time.Now().UnixMilli() },
	}
}

// forEver is the end of what does not end.
const forEver = math.MaxInt64

// aesCipher is AES-256-GCM, as the store's user hands it in.
type aesCipher struct{ aead cipher.AEAD }

func testCipher(secret []byte, purpose string) (Cipher, error) {
	key := sha256.Sum256(append([]byte(purpose), secret...))
	block, err := aes.NewCipher(key[:])
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

// commitStore and periodicStore are options for a store in a fresh folder.
func commitStore(t testing.TB) Options {
	folder := t.TempDir()
	return Options{
		Folder: folder, Key: KeySource{Path: filepath.Join(folder, KeyFile), Derive: testCipher}, Readers: 2, Fill: testValues, Clock: testClock,
		Lost: func(r Record) { t.Errorf("%s %d was acknowledged and is lost", r.Kind, r.ID) },
	}
}

func periodicStore(t testing.TB) Options {
	o := commitStore(t)
	o.Periodic = true
	return o
}

// newStore opens a store and closes it when the test ends.
func newStore(t testing.TB, o Options) *SQLite {
	t.Helper()
	st, err := OpenSQLite(o)
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

// addGroup stores a group and returns its number.
func addGroup(t testing.TB, st Store) int64 {
	t.Helper()
	return addRecord(t, st, Record{Kind: Group, Ends: forEver, Head: []byte("group")})
}

// addRecord stores a record and returns its number.
func addRecord(t testing.TB, st Store, r Record) int64 {
	t.Helper()
	if err := st.Add(&r); err != nil {
		t.Fatalf("storing a %s: %v", r.Kind, err)
	}
	return r.ID
}

// messageRecord is a message's record.
func messageRecord(group, parent int64, text string) Record {
	return Record{Kind: Message, Group: group, Parent: parent, Ends: forEver, Head: Pack(text, "alice"), Body: Pack(text)}
}

// putTogether gives the writer changes that it must find in one piece, and
// returns how each went.
func putTogether(st *SQLite, changes ...*change) []error {
	q := &st.queue
	q.mu.Lock()
	for _, c := range changes {
		if c.verb == verbAdd {
			q.numbers[c.rec.Kind]++
			c.rec.ID = q.numbers[c.rec.Kind]
		}
		c.done = make(chan error, 1)
		q.changes = append(q.changes, c)
	}
	q.signal(true)
	q.mu.Unlock()
	var outcomes []error
	for _, c := range changes {
		outcomes = append(outcomes, <-c.done)
	}
	return outcomes
}

// commits is how many transactions the log beside a database (its -wal) holds:
// https://www.sqlite.org/fileformat.html section 4.2.
func commits(t testing.TB, folder string) (n int) {
	t.Helper()
	wal, err := os.ReadFile(filepath.Join(folder, DatabaseFile+"-wal"))
	if err != nil || len(wal) < 32 {
		t.Fatalf("reading the -wal: %d bytes, %v", len(wal), err)
	}
	page, salts := int(binary.BigEndian.Uint32(wal[8:])), string(wal[16:24])
	for at := 32; at+24+page <= len(wal) && string(wal[at+8:at+16]) == salts; at += 24 + page {
		if binary.BigEndian.Uint32(wal[at+4:]) != 0 {
			n++
		}
	}
	return n
}

// fingerprint is the size, the time of change and the content of every file of
// a folder; but for the -shm, which is memory that connections share.
func fingerprint(t testing.TB, folder string) map[string]string {
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

// wantSame expects a folder as it was.
func wantSame(t testing.TB, before, after map[string]string) {
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

// copyDatabase copies a database as it is at this moment, as a power cut would
// leave it.
func copyDatabase(t testing.TB, from string) (to string) {
	t.Helper()
	to = t.TempDir()
	for _, name := range []string{DatabaseFile, DatabaseFile + "-wal"} {
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

// mustExec runs SQL that must work.
func mustExec(t testing.TB, db *sql.DB, text string, args ...any) {
	t.Helper()
	if _, err := db.Exec(text, args...); err != nil {
		t.Fatalf("%.60s: %v", text, err)
	}
}
