package test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"homeroom/test/disk"
)

// TestBackupCommands: the commands of the program, one after the other, and one
// of them killed.
func TestBackupCommands(t *testing.T) {
	t.Parallel()
	path, data, settings := buildProgram(t), t.TempDir(), writeSettings(t, programSettings)
	folder := t.TempDir()
	file := filepath.Join(folder, "backup.db")
	p := startProgram(t, path, "-config", settings, "-data", data)
	c := p.Guest("alice")
	c.Ask("#createroom den", "@status 0")
	wants := func(want int, args ...string) string {
		t.Helper()
		code, stdout, stderr := run(t, args...)
		if code != want {
			t.Errorf("%q: exit code %d, want %d; it says %s%s", args, code, want, stdout, stderr)
		}
		return stdout + stderr
	}
	wants(exitDone, "backup", "-config", settings, "-data", data, file)
	wants(exitDone, "check", "-data", data)
	wants(exitFailed, "restore", "-data", data, "-force", file)
	wants(exitFailed, "key", "rotate", "-data", data)
	wants(exitUsage, "backup", "-data", data)
	wants(exitUsage, "restore", "-data", data, file, "more")
	wants(exitUsage, "key", "-data", data)
	wants(exitUsage, "key", "rotate", "again")
	wants(exitFailed, "check", "-config", filepath.Join(folder, "none.toml"))
	c.Ask("#createroom lair", "@status 0")
	for range *kills {
		b := launch(t, path, "backup", "-data", data, file)
		select {
		case <-b.ended:
		case <-time.After(10 * time.Millisecond): // any moment will do
		}
		b.kill()
		wantSound(t, file) // the one from before, or the new one
	}
	wants(exitDone, "backup", "-data", data, file)
	p.terminate()
	wants(exitFailed, "restore", "-data", data, file)
	if said := wants(exitDone, "restore", "-data", data, "-force", file); !strings.Contains(said, ".old-1") {
		t.Errorf("it says %q", said)
	}
	wants(exitDone, "key", "rotate", "-data", data)
	wants(exitDone, "check", "-data", data)
	p = startProgram(t, path, "-config", settings, "-data", data)
	p.Guest("bob").Ask("#changeroom lair", "@status 0")
}

// TestBackupSyncFails: a backup that does not get to the disk does not take the
// place of the one from before.
func TestBackupSyncFails(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	disk.NeedRoot(t, "strace")
	path, data, folder := buildProgram(t), t.TempDir(), t.TempDir()
	all, file := fillFolder(t, data, 100), filepath.Join(folder, "backup.db")
	if code, said, why := run(t, "backup", "-data", data, file); code != exitDone {
		t.Fatalf("the first backup: exit code %d, %s%s", code, said, why)
	}
	unsynced, unnamed := false, false
	// A backup syncs 6 times. The threads, for which strace counts, may share that in
	// a way that leaves one of those in question out.
	for round := 0; round < 10 || !(unsynced && unnamed) && round < 200; round++ {
		before := fileContent(t, file)
		p, _ := launchFaulty(t, callFault{calls: "fsync,fdatasync", fault: "error=EIO"}, 1+round%10, path, "backup", "-data", data, file)
		if p.exitCode() == exitDone {
			continue // SQLite does without the sync of a folder
		}
		if !strings.Contains(p.logged(), "making the backup") {
			t.Errorf("sync %d: it says %q", 1+round%10, p.logged())
		}
		unsynced = unsynced || strings.Contains(p.logged(), ".tmp: input/output error")
		if strings.Contains(p.logged(), "sync "+folder+": input/output error") { // it has its name by then
			unnamed = true
		} else if fileContent(t, file) != before {
			t.Errorf("sync %d: the backup is not the one from before", 1+round%10)
		}
		if files, err := os.ReadDir(folder); err != nil || len(files) != 1 {
			t.Errorf("%v is left (%v), want the backup only", files, err)
		}
	}
	if !unsynced || !unnamed {
		t.Errorf("a failing sync of the file was met: %v, of its folder: %v", unsynced, unnamed)
	}
	fresh := t.TempDir()
	key := fileContent(t, filepath.Join(data, keyFile))
	if err := os.WriteFile(filepath.Join(fresh, keyFile), []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, said, why := run(t, "restore", "-data", fresh, file); code != exitDone {
		t.Errorf("restoring: exit code %d, %s%s", code, said, why)
	}
	wantContents(t, fresh, all)
}

// TestRestoreFaults: a restore with -force is killed at, or meets an error in, one
// system call after the other that changes the disk. A server starts with the old
// data or with the backup, or it says what to do, and doing that works; the old
// database is not lost in any case.
func TestRestoreFaults(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	disk.NeedRoot(t, "strace")
	path, made, file := buildProgram(t), t.TempDir(), filepath.Join(t.TempDir(), "backup.db")
	r := restoreTest{file: file, saved: fillFolder(t, made, 30)}
	if code, said, why := run(t, "backup", "-data", made, file); code != exitDone {
		t.Fatalf("the backup: exit code %d, %s%s", code, said, why)
	}
	p := startOn(t, made)
	c := p.Guest("bob")
	c.Ask("#joingroup talk", "@status 0")
	c.Ask("#postmessage heading\r\nin the log only", "@status 0")
	c.Conn.Close()
	r.old = contents(p)
	p.kill()
	eachCallFault(t, func(f callFault, n int) bool {
		folder := filepath.Join(t.TempDir(), "data")
		copyFolder(t, made, folder)
		p, trace := launchFaulty(t, f, n, path, "restore", "-force", "-data", folder, file)
		code := p.exitCode()
		if r.wantRestorable(t, folder); t.Failed() {
			t.Fatalf("%s at call %d of %s; it says:\n%s", f.fault, n, f.calls, p.logged())
		}
		return code == -1 || strings.Contains(fileContent(t, trace), "INJECTED")
	})
}

// restoreTest is a backup, what it holds, and what was there before it is restored.
type restoreTest struct {
	file       string
	saved, old []string
}

// wantRestorable expects that a folder whose restore was cut off opens with the
// old records or the backup's, or after the restore is done again, with those.
func (r restoreTest) wantRestorable(t *testing.T, folder string) {
	t.Helper()
	args := []string{"-config", writeSettings(t, programSettings), "-data", folder}
	p, refused := launch(t, buildProgram(t), args...), false
	select {
	case p.Addr = <-p.listening:
	case <-p.ended:
		refused = true
		if said := p.logged(); !strings.Contains(said, "interrupted; do it again") && !strings.Contains(said, "is gone but") {
			t.Errorf("a start says %q", said)
		}
		if code, said, why := run(t, "restore", "-force", "-data", folder, r.file); code != exitDone {
			t.Fatalf("doing it again: exit code %d, %s%s", code, said, why)
		}
		p = startProgram(t, buildProgram(t), args...)
	}
	got := contents(p)
	p.kill()
	if len(got) == len(r.old) && !refused {
		wantSameContents(t, got, r.old)
		return
	}
	wantSameContents(t, got, r.saved)
	kept := t.TempDir()
	for from, to := range map[string]string{databaseFile + ".old-1": databaseFile, databaseFile + ".old-1-wal": databaseFile + "-wal", keyFile: keyFile} {
		content, err := os.ReadFile(filepath.Join(folder, from))
		if err := errors.Join(err, os.WriteFile(filepath.Join(kept, to), content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	wantContents(t, kept, r.old)
}
