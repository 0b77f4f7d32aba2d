package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"homeroom/datadir"
)

// backupOf makes a backup of a folder and returns where it is.
func backupOf(t testing.TB, folder string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "backup.db")
	if err := backup(t.Context(), io.Discard, folder, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// wantOnly expects that only these files are in a folder.
func wantOnly(t testing.TB, folder string, names ...string) {
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

// TestBackupWhileRunning: a backup that is made while people post is of one
// moment, and what is restored from it opens with the key.
func TestBackupWhileRunning(t *testing.T) {
	t.Parallel()
	ts := startServer(t)
	c := ts.Member("alice")
	c.Ask(`#creategroup talk "" anon`, "@status 0")
	c.Ask("#joingroup talk", "@status 0")
	stop := make(chan struct{})
	var posting sync.WaitGroup
	posted := make(chan bool, 1)
	posting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				c.Ask("#postmessage canary-heading\r\ncanary-text", "@status 0")
				select {
				case posted <- true:
				default:
				}
			}
		}
	})
	var files []string
	for range 5 {
		<-posted
		files = append(files, backupOf(t, ts.cfg.Server.Data))
	}
	close(stop)
	posting.Wait()
	key, err := os.ReadFile(filepath.Join(ts.cfg.Server.Data, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	before := 0
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte("canary")) || bytes.Contains(content, []byte("alice")) || bytes.Contains(content, key) {
			t.Error("the backup holds what users wrote, or the key")
		}
		before = wantRestores(t, file, key, before)
	}
	wantOnly(t, filepath.Dir(files[0]), "backup.db")
}

// wantRestores restores a backup into a fresh folder and expects a server there
// to have a group with at least so many messages as it counts.
func wantRestores(t *testing.T, file string, key []byte, least int) (messages int) {
	t.Helper()
	cfg := testConfig(t)
	src := newKeySource("", cfg.Server.Data, nil)
	if err := os.WriteFile(src.path, key, 0o600); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	if err := restore(t.Context(), &said, cfg.Server.Data, file, false, src); err != nil || strings.Contains(said.String(), "not start") {
		t.Fatalf("restoring: %v; it says %q", err, said.String())
	}
	if err := check(t.Context(), io.Discard, cfg.Server.Data, src); err != nil {
		t.Errorf("checking what was restored: %v", err)
	}
	messages = countRows(t, cfg.Server.Data, "messages")
	ts := startWith(t, cfg)
	if all := ts.groups.all(); len(all) != 1 || int(all[0].messages.Load()) != messages || messages < least {
		t.Errorf("%d groups, %d messages (at least %d before)", len(all), messages, least)
	}
	c := ts.Dial()
	c.Ask("#login regd alice pw", "@status 0")
	c.Conn.Close() // a stop waits for who stays
	ts.stopNow()
	return messages
}

// TestBackupFails: a backup that cannot be made leaves the one from before, and
// nothing beside it.
func TestBackupFails(t *testing.T) {
	t.Parallel()
	o, _ := rotationStore(t, 300)
	file := backupOf(t, o.folder)
	before := fingerprint(t, filepath.Dir(file))
	over, stop := context.WithCancel(t.Context())
	stop()
	if err := backup(over, io.Discard, o.folder, file); err == nil {
		t.Error("a backup that was stopped is told as made")
	}
	if err := backup(t.Context(), io.Discard, t.TempDir(), file); err == nil {
		t.Error("a backup of an empty folder is told as made")
	}
	path := filepath.Join(o.folder, databaseFile)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for page := 4; page < 10; page++ {
		copy(content[page*4096:], bytes.Repeat([]byte{0xee}, 4096))
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := backup(t.Context(), io.Discard, o.folder, file); err == nil {
		t.Error("a backup of a damaged database is told as made")
	}
	wantSame(t, before, fingerprint(t, filepath.Dir(file)))
}

// TestBackupTarget: a backup is not written over anything but a backup.
func TestBackupTarget(t *testing.T) {
	t.Parallel()
	o, _ := rotationStore(t, 3)
	before := fingerprint(t, o.folder)
	for _, name := range []string{databaseFile, "lock", keyFile, "not/there", "."} {
		if err := backup(t.Context(), io.Discard, o.folder, filepath.Join(o.folder, name)); err == nil {
			t.Errorf("a backup was written over %s", name)
		}
	}
	after := fingerprint(t, o.folder)
	delete(after, "lock")
	wantSame(t, before, after)
	file := backupOf(t, o.folder)
	if err := backup(t.Context(), io.Discard, o.folder, file); err != nil {
		t.Errorf("over an older backup: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup's mode is %v (%v), want 0600", info.Mode(), err)
	}
	var said strings.Builder
	clear := filepath.Join(t.TempDir(), "clear.db")
	if err := backup(t.Context(), &said, frozenDatabase(t), clear); err != nil || !strings.Contains(said.String(), "it is in clear") {
		t.Errorf("of a database that was never sealed: %v, %q", err, said.String())
	}
}

// TestRestore: a backup replaces nothing without force, and with it keeps what
// was there.
func TestRestore(t *testing.T) {
	t.Parallel()
	o, all := rotationStore(t, 50)
	file := backupOf(t, o.folder)
	st, err := openStore(o)
	if err != nil {
		t.Fatal(err)
	}
	later := addRecord(t, st, messageRecord(1, 0, "later"))
	killed := copyDatabase(t, o.folder) // its last message is in the log
	if err := st.close(); err != nil {
		t.Fatal(err)
	}
	before := fingerprint(t, killed)
	if err := restore(t.Context(), io.Discard, killed, file, false, o.key); err == nil || !strings.Contains(err.Error(), "-force") {
		t.Errorf("without force: %v", err)
	}
	after := fingerprint(t, killed)
	delete(after, "lock")
	wantSame(t, before, after)
	lock, err := datadir.Lock(killed)
	if err != nil {
		t.Fatal(err)
	}
	if err := restore(t.Context(), io.Discard, killed, file, true, o.key); err == nil || !strings.Contains(err.Error(), "uses the data folder") {
		t.Errorf("while a server runs: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if err := restore(t.Context(), io.Discard, killed, file, true, o.key); err != nil {
		t.Fatal(err)
	}
	kept := databaseFile + ".old-1"
	wantOnly(t, killed, databaseFile, kept, kept+"-wal", "lock")
	restored := o
	restored.folder = killed
	wantRecords(t, restored, all)
	if err := errors.Join(os.Rename(filepath.Join(killed, kept), filepath.Join(killed, databaseFile)),
		os.Rename(filepath.Join(killed, kept+"-wal"), filepath.Join(killed, databaseFile+"-wal"))); err != nil {
		t.Fatal(err)
	}
	if _, err := newStore(t, restored).get(kindMessage, later); err != nil {
		t.Errorf("what was kept lost its last message: %v", err)
	}
}

// TestRestoreRefuses: what is no whole backup is not restored, and a restore that
// was cut off stops the next start.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	o, _ := rotationStore(t, 300)
	file := backupOf(t, o.folder)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(whole)
	copy(damaged[5*4096:], bytes.Repeat([]byte{0xee}, 4096))
	newer := bytes.Clone(whole)
	newer[63] = 99
	folder := t.TempDir()
	for reason, content := range map[string][]byte{
		"cannot be restored": whole[:len(whole)/2], "is damaged": damaged, "no SQLite header": []byte("text"), "of a newer program": newer,
	} {
		bad := filepath.Join(t.TempDir(), "bad.db")
		if err := os.WriteFile(bad, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := restore(t.Context(), io.Discard, folder, bad, true, o.key); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("got %v, want %q", err, reason)
		}
	}
	if err := os.WriteFile(file+"-wal", []byte("a log"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := restore(t.Context(), io.Discard, folder, file, true, o.key); err == nil || !strings.Contains(err.Error(), "is no backup") {
		t.Errorf("a database in use: %v", err)
	}
	wantOnly(t, folder)
	if err := errors.Join(os.Remove(file+"-wal"), os.WriteFile(filepath.Join(folder, databaseFile+restoring), whole[:100], 0o600)); err != nil {
		t.Fatal(err)
	}
	o.folder = folder
	wantKeyRefused(t, "after a restore that was cut off", o, "was interrupted")
	var said strings.Builder
	other := keySource{path: filepath.Join(t.TempDir(), keyFile)}
	if err := restore(t.Context(), &said, folder, file, false, other); err != nil || !strings.Contains(said.String(), "is missing") {
		t.Errorf("a restore without the key: %v, it says %q", err, said.String())
	}
	if err := openOnce(o); err != nil {
		t.Error(err)
	}
}

// TestCheck: it counts what is there, and finds what does not open, what is
// damaged, and a key that is not right.
func TestCheck(t *testing.T) {
	t.Parallel()
	o, _ := rotationStore(t, 300)
	var said strings.Builder
	newStore(t, o) // as a running server has it
	if err := check(t.Context(), &said, o.folder, o.key); err != nil || !strings.Contains(said.String(), "messages: 300, of which 0 cannot be read") {
		t.Errorf("a whole store: %v; it says\n%s", err, said.String())
	}
	if all := said.String(); !strings.Contains(all, "accounts: 1,") || !strings.Contains(all, "rooms: 1,") || !strings.Contains(all, "groups: 1,") {
		t.Errorf("it says\n%s", all)
	}
	wrong := keySource{path: filepath.Join(t.TempDir(), keyFile)}
	if err := check(t.Context(), io.Discard, o.folder, wrong); err == nil || !strings.Contains(err.Error(), "is missing") || existing(wrong.path) {
		t.Errorf("without the key: %v", err)
	}
	db := openBeside(t, o.folder)
	defer db.Close()
	mustExec(t, db, "UPDATE messages SET head = (SELECT head FROM messages WHERE id = 8) WHERE id = 7")
	mustExec(t, db, "UPDATE messages SET body = X'00' WHERE id = 9")
	said.Reset()
	if err := check(t.Context(), &said, o.folder, o.key); err == nil || !strings.Contains(err.Error(), "2 things are wrong") {
		t.Errorf("two bad messages: %v", err)
	}
	if all := said.String(); !strings.Contains(all, "head of message 7 does not open") || !strings.Contains(all, "body of message 9 is not sealed") {
		t.Errorf("it says\n%s", all)
	}
	if err := check(t.Context(), io.Discard, frozenDatabase(t), o.key); err != nil {
		t.Errorf("a database that is not sealed yet: %v", err)
	}
	mustExec(t, db, "PRAGMA writable_schema = 1")
	mustExec(t, db, "DROP INDEX messages_replies")
	damaged := copyDatabase(t, o.folder)
	mustExec(t, db, "PRAGMA wal_checkpoint(TRUNCATE)")
	content, err := os.ReadFile(filepath.Join(o.folder, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	copy(content[20*4096:], bytes.Repeat([]byte{0xee}, 4096))
	if err := errors.Join(os.WriteFile(filepath.Join(damaged, databaseFile), content, 0o600), os.Remove(filepath.Join(damaged, databaseFile+"-wal"))); err != nil {
		t.Fatal(err)
	}
	if err := check(t.Context(), io.Discard, damaged, o.key); err == nil {
		t.Error("a damaged database passes")
	}
}
