package store

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// frozenSchema1 returns the database as version 1 of the schema makes it.
func frozenSchema1(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("../test/storetest/schema1.sql")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// frozenDatabase makes a database of version 1 in a fresh folder.
func frozenDatabase(t testing.TB) (folder string) {
	t.Helper()
	folder = t.TempDir()
	db := openBeside(t, folder)
	defer db.Close()
	mustExec(t, db, frozenSchema1(t))
	return folder
}

// schemaOf is what a database consists of.
func schemaOf(t *testing.T, db *sql.DB) string {
	t.Helper()
	var all string
	err := db.QueryRow(`SELECT group_concat(name || ': ' || replace(replace(replace(sql, char(9), ''), char(10), ''), ' ', ''), char(10) ORDER BY name)
		FROM sqlite_schema`).Scan(&all)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestSchemaIsFrozen: the first migration makes what the frozen database is,
// and a frozen database that is brought up to date is like a new one.
func TestSchemaIsFrozen(t *testing.T) {
	t.Parallel()
	folder := frozenDatabase(t)
	old, fresh := openBeside(t, folder), openBeside(t, t.TempDir())
	defer old.Close()
	defer fresh.Close()
	mustExec(t, fresh, migrations[0])
	if was, is := schemaOf(t, old), schemaOf(t, fresh); was != is {
		t.Errorf("migration 1 was changed after it was released. It made\n%s\nand makes\n%s", was, is)
	}
	for _, step := range migrations[1:] {
		mustExec(t, fresh, step)
	}
	if err := migrate(old); err != nil {
		t.Fatalf("bringing the frozen database up to date: %v", err)
	}
	if was, is := schemaOf(t, old), schemaOf(t, fresh); was != is {
		t.Errorf("brought up to date, the frozen database is\n%s\na new one is\n%s", was, is)
	}
}

// TestMigrate: a step that is added is done once; one that fails changes
// nothing. (It is not parallel: it changes the list of steps.)
func TestMigrate(t *testing.T) {
	released := migrations
	defer func() { migrations = released }()
	folder := frozenDatabase(t)
	db := openBeside(t, folder)
	defer db.Close()
	migrations = append(slices.Clone(released), "CREATE TABLE extra (id INTEGER PRIMARY KEY); INSERT INTO nowhere VALUES (1)")
	before := schemaOf(t, db)
	if err := migrate(db); err == nil || schemaOf(t, db) != before || userVersion(t, db) != 1 {
		t.Errorf("a step that fails: %v, version %d, schema\n%s", err, userVersion(t, db), schemaOf(t, db))
	}
	migrations = append(slices.Clone(released), "CREATE TABLE extra (id INTEGER PRIMARY KEY); INSERT INTO extra VALUES (1)")
	for range 2 {
		if err := migrate(db); err != nil {
			t.Fatal(err)
		}
	}
	if n := countRows(t, folder, "extra"); n != 1 || userVersion(t, db) != len(migrations) {
		t.Errorf("the step was done %d times, to version %d", n, userVersion(t, db))
	}
	migrations = released
	before2 := fingerprint(t, folder)
	newer := fmt.Sprintf("of a newer program (version %d, this one knows %d)", len(released)+1, len(released))
	if _, err := OpenSQLite(Options{Folder: folder}); err == nil || !strings.Contains(err.Error(), newer) {
		t.Errorf("the program before that step: %v, want that the database is newer", err)
	}
	wantSame(t, before2, fingerprint(t, folder))
}

func userVersion(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	if err := db.QueryRow("PRAGMA user_version").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// filledDatabase makes a database of some dozen pages and returns its content.
func filledDatabase(t *testing.T) []byte {
	t.Helper()
	o := commitStore(t)
	st, err := OpenSQLite(o)
	if err != nil {
		t.Fatal(err)
	}
	group := addGroup(t, st)
	changes := make([]*change, 300)
	for i := range changes {
		changes[i] = &change{rec: messageRecord(group, 0, strings.Repeat("text ", 60))}
	}
	if err := errors.Join(append(putTogether(st, changes...), st.Close())...); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(o.Folder, DatabaseFile))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestMissingDatabase: a -wal whose database is gone is not thrown away.
func TestMissingDatabase(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, DatabaseFile+"-wal"), []byte("what was stored last"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, "-wal without database", folder, "is gone")
}

// TestNewerDatabase: a database of a newer program stays as it is, also where
// that program was killed and its last changes are in the -wal.
func TestNewerDatabase(t *testing.T) {
	t.Parallel()
	folder := frozenDatabase(t)
	db := openBeside(t, folder)
	defer db.Close()
	mustExec(t, db, "PRAGMA user_version = 99")
	wantRefused(t, "a newer database", folder, "of a newer program (version 99")
	mustExec(t, db, "PRAGMA user_version = 1")
	mustExec(t, db, "PRAGMA journal_mode = WAL")
	mustExec(t, db, "PRAGMA user_version = 99")
	wantRefused(t, "a newer database, killed", copyDatabase(t, folder), "of a newer program (version 99")
}

// TestDamageBesideLog: a damaged database with a -wal stays as it is, too.
func TestDamageBesideLog(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	path := filepath.Join(folder, DatabaseFile)
	if err := os.WriteFile(path, filledDatabase(t), 0o600); err != nil {
		t.Fatal(err)
	}
	db := openBeside(t, folder)
	defer db.Close()
	mustExec(t, db, "PRAGMA journal_mode = WAL")
	mustExec(t, db, "UPDATE rooms SET ends = 0; UPDATE state SET status = 1234567")
	killed := copyDatabase(t, folder)
	content, err := os.ReadFile(filepath.Join(killed, DatabaseFile))
	if err != nil {
		t.Fatal(err)
	}
	rand.NewChaCha8([32]byte{2}).Read(content[8*4096 : 16*4096])
	if err := os.WriteFile(filepath.Join(killed, DatabaseFile), content, 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, "damage beside a -wal", killed, "damaged")
}

// TestFolderNames: any folder name will do, also one that means something in a
// URI.
func TestFolderNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a b", "a#b?c=d&e", "100%41", "50%", "a:b", "été", `back\slash`, "'quote\"", "..."} {
		o := commitStore(t)
		o.Folder = filepath.Join(o.Folder, name)
		if err := os.Mkdir(o.Folder, 0o700); err != nil {
			t.Fatal(err)
		}
		for want := range int64(2) {
			st, err := OpenSQLite(o)
			if err != nil {
				t.Errorf("%q: %v", name, err)
				break
			}
			if id := addGroup(t, st); id != want+1 {
				t.Errorf("%q: the group has number %d, want %d", name, id, want+1)
			}
			if err := st.Close(); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
		if files, err := os.ReadDir(o.Folder); err != nil || len(files) != 2 || files[0].Name() != DatabaseFile || files[1].Name() != spareFile {
			t.Errorf("%q holds %v (%v), want only %s and %s", name, files, err, DatabaseFile, spareFile)
		}
	}
}

// TestHalfMadeDatabase: what a crash left of making a database does not matter.
func TestHalfMadeDatabase(t *testing.T) {
	t.Parallel()
	o := commitStore(t)
	for _, name := range []string{".new", ".new-wal", ".new-shm", "-wal"} {
		content := []byte("half a database")
		if name == "-wal" {
			content = nil
		}
		if err := os.WriteFile(filepath.Join(o.Folder, DatabaseFile+name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	addGroup(t, newStore(t, o))
	if left, _ := filepath.Glob(filepath.Join(o.Folder, "*.new*")); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

// folderContent is the content of all files of a folder.
func folderContent(t *testing.T, folder string) (all []byte) {
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

// wantRefused expects that no server starts on a folder, for a reason that it
// says in one line, and that the folder stays as it is.
func wantRefused(t *testing.T, name, folder, reason string) {
	t.Helper()
	before := fingerprint(t, folder)
	o := commitStore(t)
	o.Folder, o.Key.Path = folder, filepath.Join(folder, KeyFile)
	err := openOnce(o)
	if err == nil {
		t.Errorf("%s: the store opens", name)
		return
	}
	if text := err.Error(); !strings.Contains(text, reason) || !strings.Contains(text, DatabaseFile) || len(text) > 500 {
		t.Errorf("%s: the reason is %q, want %q and the file in it", name, text, reason)
	}
	after := fingerprint(t, folder)
	if _, ok := after[DatabaseFile+"-wal"]; ok && before[DatabaseFile+"-wal"] == "" {
		t.Errorf("%s: a -wal was left", name)
	}
	wantSame(t, before, after)
}

// TestDamagedDatabase: a database that is not whole is refused with one clear
// line, and nothing is written over it.
func TestDamagedDatabase(t *testing.T) {
	t.Parallel()
	whole := filledDatabase(t)
	pages := len(whole) / 4096
	if pages < 20 {
		t.Fatalf("the database has %d pages, too few to damage", pages)
	}
	garbage := make([]byte, 4096)
	rand.NewChaCha8([32]byte{1}).Read(garbage)
	overwrite := func(at int, with []byte) []byte {
		b := slices.Clone(whole)
		copy(b[at:], with)
		return b
	}
	damaged := map[string][]byte{
		"zero length": {}, "one byte": whole[:1], "half a header": whole[:50], "header only": whole[:100],
		"garbage header": overwrite(0, garbage[:100]), "garbage first page": overwrite(100, garbage[100:]),
		"one page": whole[:4096], "half": whole[:pages/2*4096], "cut in a page": whole[:pages/2*4096+1000],
		"last page gone": whole[:len(whole)-4096], "all zero": make([]byte, len(whole)),
		"text": bytes.Repeat([]byte("this is no database\n"), 1000),
	}
	for page := 1; page < pages; page++ {
		damaged[fmt.Sprintf("garbage page %d", page)] = overwrite(page*4096, garbage)
	}
	for name, content := range damaged {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, DatabaseFile), content, 0o600); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, name, folder, "damaged")
	}
}
