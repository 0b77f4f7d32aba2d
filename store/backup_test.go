package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"homeroom/datadir"
)

// backupOf makes a backup of a folder and returns where it is.
func backupOf(t testing.TB, folder string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "backup.db")
	if err := Backup(t.Context(), io.Discard, folder, file); err != nil {
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

// TestBackupFails: a backup that cannot be made leaves the one from before, and
// nothing beside it.
func TestBackupFails(t *testing.T) {
	t.Parallel()
	o, _ := rotationStore(t, 300)
	file := backupOf(t, o.Folder)
	before := fingerprint(t, filepath.Dir(file))
	over, stop := context.WithCancel(t.Context())
	stop()
	if err := Backup(over, io.Discard, o.Folder, file); err == nil {
		t.Error("a backup that was stopped is told as made")
	}
	if err := Backup(t.Context(), io.Discard, t.TempDir(), file); err == nil {
		t.Error("a backup of an empty folder is told as made")
	}
	path := filepath.Join(o.Folder, DatabaseFile)
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
	if err := Backup(t.Context(), io.Discard, o.Folder, file); err == nil {
		t.Error("a backup of a damaged database is told as made")
	}
	wantSame(t, before, fingerprint(t, filepath.Dir(file)))
}

// TestBackupTarget: a backup is not written over anything but a backup.
func TestBackupTarget(t *testing.T) {
	t.Parallel()
	o, _ := rotationStore(t, 3)
	before := fingerprint(t, o.Folder)
	for _, name := range []string{DatabaseFile, "lock", KeyFile, "not/there", "."} {
		if err := Backup(t.Context(), io.Discard, o.Folder, filepath.Join(o.Folder, name), "control"); err == nil {
			t.Errorf("a backup was written over %s", name)
		}
	}
	after := fingerprint(t, o.Folder)
	delete(after, "lock")
	wantSame(t, before, after)
	file := backupOf(t, o.Folder)
	if err := Backup(t.Context(), io.Discard, o.Folder, file); err != nil {
		t.Errorf("over an older backup: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup's mode is %v (%v), want 0600", info.Mode(), err)
	}
	var said strings.Builder
	clear := filepath.Join(t.TempDir(), "clear.db")
	if err := Backup(t.Context(), &said, frozenDatabase(t), clear); err != nil || !strings.Contains(said.String(), "it is in clear") {
		t.Errorf("of a database that was never sealed: %v, %q", err, said.String())
	}
}

// TestRestore: a backup replaces nothing without force, and with it keeps what
// was there.
func TestRestore(t *testing.T) {
	t.Parallel()
	o, all := rotationStore(t, 50)
	file := backupOf(t, o.Folder)
	st, err := OpenSQLite(o)
	if err != nil {
		t.Fatal(err)
	}
	later := addRecord(t, st, messageRecord(1, 0, "later"))
	killed := copyDatabase(t, o.Folder) // its last message is in the log
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	before := fingerprint(t, killed)
	if err := Restore(t.Context(), io.Discard, killed, file, false, o.Key); err == nil || !strings.Contains(err.Error(), "-force") {
		t.Errorf("without force: %v", err)
	}
	after := fingerprint(t, killed)
	delete(after, "lock")
	wantSame(t, before, after)
	lock, err := datadir.Lock(killed)
	if err != nil {
		t.Fatal(err)
	}
	if err := Restore(t.Context(), io.Discard, killed, file, true, o.Key); err == nil || !strings.Contains(err.Error(), "uses the data folder") {
		t.Errorf("while a server runs: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if err := Restore(t.Context(), io.Discard, killed, file, true, o.Key); err != nil {
		t.Fatal(err)
	}
	kept := DatabaseFile + ".old-1"
	wantOnly(t, killed, DatabaseFile, kept, kept+"-wal", "lock")
	restored := o
	restored.Folder = killed
	wantRecords(t, restored, all)
	if err := errors.Join(os.Rename(filepath.Join(killed, kept), filepath.Join(killed, DatabaseFile)),
		os.Rename(filepath.Join(killed, kept+"-wal"), filepath.Join(killed, DatabaseFile+"-wal"))); err != nil {
		t.Fatal(err)
	}
	if _, err := newStore(t, restored).Get(Message, later); err != nil {
		t.Errorf("what was kept lost its last message: %v", err)
	}
}

// TestRestoreRefuses: what is no whole backup is not restored, and a restore that
// was cut off stops the next start.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	o, _ := rotationStore(t, 300)
	file := backupOf(t, o.Folder)
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
		if err := Restore(t.Context(), io.Discard, folder, bad, true, o.Key); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("got %v, want %q", err, reason)
		}
	}
	if err := os.WriteFile(file+"-wal", []byte("a log"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Restore(t.Context(), io.Discard, folder, file, true, o.Key); err == nil || !strings.Contains(err.Error(), "is no backup") {
		t.Errorf("a database in use: %v", err)
	}
	wantOnly(t, folder)
	if err := errors.Join(os.Remove(file+"-wal"), os.WriteFile(filepath.Join(folder, DatabaseFile+restoring), whole[:100], 0o600)); err != nil {
		t.Fatal(err)
	}
	o.Folder = folder
	wantKeyRefused(t, "after a restore that was cut off", o, "was interrupted")
	var said strings.Builder
	other := KeySource{Path: filepath.Join(t.TempDir(), KeyFile), Derive: testCipher}
	if err := Restore(t.Context(), &said, folder, file, false, other); err != nil || !strings.Contains(said.String(), "is missing") {
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
	if err := Check(t.Context(), &said, o.Folder, o.Key); err != nil || !strings.Contains(said.String(), "messages: 300, of which 0 cannot be read") {
		t.Errorf("a whole store: %v; it says\n%s", err, said.String())
	}
	if all := said.String(); !strings.Contains(all, "accounts: 1,") || !strings.Contains(all, "rooms: 1,") || !strings.Contains(all, "groups: 1,") {
		t.Errorf("it says\n%s", all)
	}
	wrong := KeySource{Path: filepath.Join(t.TempDir(), KeyFile), Derive: testCipher}
	if err := Check(t.Context(), io.Discard, o.Folder, wrong); err == nil || !strings.Contains(err.Error(), "is missing") || existing(wrong.Path) {
		t.Errorf("without the key: %v", err)
	}
	db := openBeside(t, o.Folder)
	defer db.Close()
	mustExec(t, db, "UPDATE messages SET head = (SELECT head FROM messages WHERE id = 8) WHERE id = 7")
	mustExec(t, db, "UPDATE messages SET body = X'00' WHERE id = 9")
	said.Reset()
	if err := Check(t.Context(), &said, o.Folder, o.Key); err == nil || !strings.Contains(err.Error(), "2 things are wrong") {
		t.Errorf("two bad messages: %v", err)
	}
	if all := said.String(); !strings.Contains(all, "head of message 7 does not open") || !strings.Contains(all, "body of message 9 is not sealed") {
		t.Errorf("it says\n%s", all)
	}
	if err := Check(t.Context(), io.Discard, frozenDatabase(t), o.Key); err != nil {
		t.Errorf("a database that is not sealed yet: %v", err)
	}
	mustExec(t, db, "PRAGMA writable_schema = 1")
	mustExec(t, db, "DROP INDEX messages_replies")
	damaged := copyDatabase(t, o.Folder)
	mustExec(t, db, "PRAGMA wal_checkpoint(TRUNCATE)")
	content, err := os.ReadFile(filepath.Join(o.Folder, DatabaseFile))
	if err != nil {
		t.Fatal(err)
	}
	copy(content[20*4096:], bytes.Repeat([]byte{0xee}, 4096))
	if err := errors.Join(os.WriteFile(filepath.Join(damaged, DatabaseFile), content, 0o600), os.Remove(filepath.Join(damaged, DatabaseFile+"-wal"))); err != nil {
		t.Fatal(err)
	}
	if err := Check(t.Context(), io.Discard, damaged, o.Key); err == nil {
		t.Error("a damaged database passes")
	}
}
