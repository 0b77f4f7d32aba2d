package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"homeroom/test/wire"
)

// oldDatabase makes a folder with a database of version 1, as a server of then
// left it when it was killed, and returns what it holds.
func oldDatabase(t testing.TB, messages int) (folder string, all []record) {
	t.Helper()
	made := t.TempDir()
	if err := setPageSize(filepath.Join(made, databaseFile)); err != nil {
		t.Fatal(err)
	}
	db := openBeside(t, made)
	defer db.Close()
	db.SetMaxOpenConns(1)
	mustExec(t, db, "PRAGMA wal_autocheckpoint = 0")
	mustExec(t, db, frozenSchema1)
	mustExec(t, db, "DELETE FROM messages WHERE grp = 2; DELETE FROM groups WHERE deleted = 1") // a start would
	for i := range messages {
		if i == messages/2 { // half of them are in the log only
			mustExec(t, db, "PRAGMA wal_checkpoint")
		}
		r := messageRecord(3, 0, fmt.Sprintf("message %d %s", i, strings.Repeat("text ", i%300)))
		mustExec(t, db, "INSERT INTO messages VALUES (?, 3, 0, 0, ?, ?, ?)", 21+i, int64(never), r.head, r.body)
	}
	mustExec(t, db, "UPDATE groups SET messages = messages + ?1, tops = tops + ?1 WHERE id = 3", messages)
	mustExec(t, db, "UPDATE state SET message = message + ?", messages)
	for k := range kinds {
		err := eachPage(db, k, func(page []record) error {
			for _, r := range page {
				r.kind = k
				all = append(all, r)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return copyDatabase(t, made), all
}

// upgradeTest brings one old database up to date again and again.
type upgradeTest struct {
	path, settings, old string
	all                 []record
	left                map[int]int // how often each version was found
}

func newUpgradeTest(t testing.TB, messages int) *upgradeTest {
	t.Helper()
	u := &upgradeTest{path: buildProgram(t), settings: writeSettings(t, programSettings), left: map[int]int{}}
	u.old, u.all = oldDatabase(t, messages)
	return u
}

// args is the command line of a server on a folder.
func (u *upgradeTest) args(folder string) []string {
	return []string{"-config", u.settings, "-data", folder}
}

// copyFolder copies the files of a folder for their owner's eyes only.
func copyFolder(t testing.TB, from, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, f.Name()), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// fresh copies the old database to a new folder.
func (u *upgradeTest) fresh(t testing.TB, folder string) {
	t.Helper()
	copyFolder(t, u.old, folder)
}

// wantOneVersion expects a database that is of the old version or the new one,
// whole, and that a start makes the new one of it, with all that there was.
func (u *upgradeTest) wantOneVersion(t testing.TB, folder string) {
	t.Helper()
	path := filepath.Join(folder, databaseFile)
	if err := checkWhole(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	version := versionOf(t, path)
	if u.left[version]++; version != 1 && version != len(migrations) {
		t.Errorf("the database is of version %d", version)
	}
	o := commitStore(t)
	o.folder, o.key.path = folder, filepath.Join(folder, keyFile)
	if err := openOnce(o); err != nil {
		t.Fatalf("opening what was left (version %d): %v", version, err)
	}
	wantRecords(t, o, u.all)
	if version := versionOf(t, path); version != len(migrations) {
		t.Errorf("after a start the database is of version %d", version)
	}
	wantChecked(t, folder)
}

// versionOf reads the version of a database that nobody uses and changes nothing.
func versionOf(t testing.TB, path string) (version int) {
	t.Helper()
	db, err := openUntouched(path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		t.Fatal(err)
	}
	return version
}

// callFault is one way in which system calls that change what is on a disk go
// wrong, and at which of them a short test has them do.
type callFault struct {
	calls, fault string
	few          []int
}

func callFaults() []callFault {
	return []callFault{
		{"pwrite64", "signal=KILL", []int{5, 40, 160}},
		{"fsync,fdatasync", "signal=KILL", []int{3, 8}},
		{"ftruncate", "signal=KILL", []int{3}},
		{"rename,renameat,renameat2", "signal=KILL", []int{1, 2, 3}},
		{"link,linkat", "signal=KILL", []int{1, 2}},
		{"unlink,unlinkat", "signal=KILL", []int{1, 2}},
		{"write", "signal=KILL", []int{1}},
		{"copy_file_range", "signal=KILL", []int{1}},
		{"pwrite64", "error=EIO", []int{7, 60}},
		{"pwrite64", "error=ENOSPC", []int{30}},
		{"copy_file_range", "error=ENOSPC", []int{1}},
		{"fsync,fdatasync", "error=EIO", []int{4, 10}},
	}
}

// eachCallFault has one call after the other go wrong: a few, or with -faults=all
// each that there is. once tells whether there was such a call.
func eachCallFault(t *testing.T, once func(f callFault, n int) bool) {
	t.Helper()
	total := 0
	for _, f := range callFaults() {
		hit := 0
		if *faults != "all" {
			for _, n := range f.few {
				if once(f, n) {
					hit++
				}
			}
		} else {
			// As in TestStorageFaults, three rounds without one show that there is no more.
			for n, missed := 1, 0; missed < 3 && !t.Failed(); n++ {
				if missed++; once(f, n) {
					hit++
					missed = 0
				}
			}
		}
		t.Logf("%s at %d calls of %s", f.fault, hit, f.calls)
		total += hit
	}
	if total == 0 {
		t.Error("no call was reached")
	}
}

// launchFaulty launches the program with the nth call of each of its threads
// going wrong, and returns where strace writes which did.
func launchFaulty(t testing.TB, f callFault, n int, line ...string) (p *program, trace string) {
	t.Helper()
	trace = filepath.Join(t.TempDir(), "trace")
	// With a processor to spare, a goroutine that was in a system call goes on in the
	// thread it had, for which strace counts.
	options := []string{"-D", "-f", "-qq", "-E", "GOMAXPROCS=16", "-o", trace, "-e", "trace=" + f.calls, "-e", fmt.Sprintf("inject=%s:%s:when=%d", f.calls, f.fault, n)}
	if strings.HasPrefix(f.fault, "error") { // it is quicker, but keeps signals from coming
		options = append(options, "--seccomp-bpf")
	}
	return launch(t, "strace", append(options, line...)...), trace
}

// TestUpgradeFaults: a server that brings an old database up to date is killed
// at, or meets an error in, one system call after the other that changes the disk.
// What is left is of the old version or the new one, with all that it held.
func TestUpgradeFaults(t *testing.T) {
	t.Parallel()
	needRoot(t, "strace")
	u := newUpgradeTest(t, 100)
	eachCallFault(t, func(f callFault, n int) (hit bool) {
		folder := filepath.Join(t.TempDir(), "data")
		u.fresh(t, folder)
		p, trace := launchFaulty(t, f, n, append([]string{u.path}, u.args(folder)...)...)
		select {
		case <-p.ended:
			hit = p.exitCode() == -1
		case <-p.listening:
			p.kill()
		case <-time.After(wire.Patience):
			t.Fatalf("the server neither listens nor ends; it says:\n%s", p.logged())
		}
		if u.wantOneVersion(t, folder); t.Failed() {
			t.Errorf("%s at call %d of %s; it says:\n%s", f.fault, n, f.calls, p.logged())
		}
		return hit || strings.Contains(readTrace(t, trace), "INJECTED")
	})
	t.Logf("versions left: %v", u.left)
}

// TestPowerCutUpgrade: the same, with the power cut at any moment.
func TestPowerCutUpgrade(t *testing.T) {
	t.Parallel()
	disk, u := newPowerDisk(t), newUpgradeTest(t, 300)
	began := time.Now()
	folder := filepath.Join(disk.folder, "whole")
	u.fresh(t, folder)
	startProgram(t, u.path, u.args(folder)...).kill()
	whole := time.Since(began)
	for round := range *powercuts {
		folder := filepath.Join(disk.folder, fmt.Sprint(round))
		u.fresh(t, folder)
		if _, err := runCommand("sync -f " + folder); err != nil {
			t.Fatal(err)
		}
		for range 1 + rand.IntN(2) {
			p := launch(t, u.path, u.args(folder)...)
			p.waitSome(1 + rand.N(whole)) // rather early than late
			disk.cut(p)
		}
		if u.wantOneVersion(t, folder); t.Failed() {
			t.Fatalf("round %d", round)
		}
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d upgrades, each with one or two power cuts; versions left: %v", *powercuts, u.left)
}
