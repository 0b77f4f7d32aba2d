package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
		mustExec(t, db, "INSERT INTO messages VALUES (?, 3, 0, 0, ?, ?, ?)", 21+i, never, r.head, r.body)
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

// fresh copies the old database to a new folder.
func (u *upgradeTest) fresh(t testing.TB, folder string) {
	t.Helper()
	if err := os.CopyFS(folder, os.DirFS(u.old)); err != nil {
		t.Fatal(err)
	}
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

// changingCall is a kind of system call that changes what is on a disk.
type changingCall struct {
	calls string
	few   []int // the calls at which a short test kills
}

func changingCalls() []changingCall {
	return []changingCall{
		{"pwrite64", []int{5, 40, 160}},
		{"fsync,fdatasync", []int{3, 8}},
		{"ftruncate", []int{3}},
		{"rename,renameat,renameat2", []int{1}},
		{"unlink,unlinkat", []int{2}},
		{"write", []int{1}},
	}
}

// TestUpgradeKilled kills a server at one call after the other that changes the
// disk (strace counts them for each thread) while it brings an old database up
// to date. What is left is of the old version or the new one, with all that it
// held. With -faults=all it is every call.
func TestUpgradeKilled(t *testing.T) {
	t.Parallel()
	needRoot(t, "strace")
	u, killed := newUpgradeTest(t, 100), 0
	for _, kind := range changingCalls() {
		if *faults != "all" {
			for _, n := range kind.few {
				if u.killAt(t, kind.calls, n) {
					killed++
				}
			}
			continue
		}
		// As in TestStorageFaults, three rounds to the end show that there is no such call.
		for n, whole := 1, 0; whole < 3 && !t.Failed(); n++ {
			if whole++; u.killAt(t, kind.calls, n) {
				killed++
				whole = 0
			}
		}
	}
	if killed == 0 {
		t.Error("no call was reached")
	}
	t.Logf("%d upgrades killed; versions left: %v", killed, u.left)
}

// killAt brings the old database up to date, is killed at the nth call of a
// thread, and tells whether it came to that.
func (u *upgradeTest) killAt(t *testing.T, calls string, n int) (killed bool) {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "data")
	u.fresh(t, folder)
	p := launch(t, "strace", append([]string{ // --seccomp-bpf would keep the signal from coming
		"-D", "-f", "-qq", "-o", os.DevNull, "-e", "trace=" + calls,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", calls, n), u.path,
	}, u.args(folder)...)...)
	select {
	case <-p.ended:
		killed = true
		if code := p.exitCode(); code != -1 {
			t.Errorf("exit code %d, want a kill", code)
		}
	case <-p.listening:
		p.kill()
	case <-time.After(patience):
		t.Fatalf("call %d of %s: the server neither listens nor ends; it says:\n%s", n, calls, p.logged())
	}
	if u.wantOneVersion(t, folder); t.Failed() {
		t.Errorf("call %d of %s; it says:\n%s", n, calls, p.logged())
	}
	return killed
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
