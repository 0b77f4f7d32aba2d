package test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"homeroom/test/disk"
	"homeroom/test/wire"
)

// newest is the version of the databases that the program makes.
const newest = 7

// fields packs texts as a record has them: each with its length before it.
func fields(texts ...string) (b []byte) {
	for _, text := range texts {
		b = append(binary.AppendUvarint(b, uint64(len(text))), text...)
	}
	return b
}

// oldDatabase makes a folder with a database of version 1, as a server of then
// left it when it was killed.
func oldDatabase(t testing.TB, messages int) (folder string) {
	t.Helper()
	made, left := t.TempDir(), t.TempDir()
	schema, err := os.ReadFile("storetest/schema1.sql")
	if err != nil {
		t.Fatal(err)
	}
	db := openBeside(t, made)
	defer db.Close()
	db.SetMaxOpenConns(1)
	mustExec(t, db, "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0")
	mustExec(t, db, string(schema))
	mustExec(t, db, "DELETE FROM messages WHERE grp = 2; DELETE FROM groups WHERE deleted = 1") // a start would
	for i := range messages {
		if i == messages/2 { // half of them are in the log only
			mustExec(t, db, "PRAGMA wal_checkpoint")
		}
		text := fmt.Sprintf("message %d %s", i, strings.Repeat("text ", i%180))
		mustExec(t, db, "INSERT INTO messages VALUES (?, 3, 0, 0, ?, ?, ?)", 21+i, int64(math.MaxInt64), fields(fmt.Sprint("heading", i), "alice"), fields(text))
	}
	mustExec(t, db, "UPDATE groups SET messages = messages + ?1, tops = tops + ?1 WHERE id = 3", messages)
	mustExec(t, db, "UPDATE state SET message = message + ?", messages)
	copyFolder(t, made, left)
	_ = os.Remove(filepath.Join(left, databaseFile+"-shm")) // a power cut leaves none
	return left
}

// upgradeTest brings one old database up to date again and again.
type upgradeTest struct {
	path, settings, old string
	all                 []string    // what a server shows of it
	left                map[int]int // how often each version was found
}

func newUpgradeTest(t testing.TB, messages int) *upgradeTest {
	t.Helper()
	u := &upgradeTest{path: buildProgram(t), settings: writeSettings(t, programSettings), left: map[int]int{}}
	u.old = oldDatabase(t, messages)
	folder := filepath.Join(t.TempDir(), "whole")
	u.fresh(t, folder)
	p := startOn(t, folder)
	u.all = contents(p)
	p.kill()
	if shown := strings.Join(u.all, "\n"); !strings.Contains(shown, "first part") || len(u.all) < 2*messages {
		t.Fatalf("of the old database a server shows\n%.2000s", shown)
	}
	return u
}

// args is the command line of a server on a folder.
func (u *upgradeTest) args(folder string) []string {
	return []string{"-config", u.settings, "-data", folder}
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
	version := askDatabase(t, folder, "PRAGMA user_version")
	if u.left[version]++; version != 1 && version != newest {
		t.Errorf("the database is of version %d", version)
	}
	if askDatabase(t, folder, "SELECT integrity_check = 'ok' FROM pragma_integrity_check LIMIT 1") != 1 {
		t.Errorf("the database (version %d) is damaged", version)
	}
	p := startOn(t, folder)
	wantSameContents(t, contents(p), u.all)
	if code := p.terminate(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	if version := askDatabase(t, folder, "PRAGMA user_version"); version != newest {
		t.Errorf("after a start the database is of version %d", version)
	}
	wantChecked(t, folder)
}

// TestUpgradeFaults: a server that brings an old database up to date is killed
// at, or meets an error in, one system call after the other that changes the disk.
// What is left is of the old version or the new one, with all that it held.
func TestUpgradeFaults(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	disk.NeedRoot(t, "strace")
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
		return hit || strings.Contains(fileContent(t, trace), "INJECTED")
	})
	t.Logf("versions left: %v", u.left)
}

// TestPowerCutUpgrade: the same, with the power cut at any moment.
func TestPowerCutUpgrade(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	power, u := disk.NewPower(t), newUpgradeTest(t, 300)
	began := time.Now()
	folder := filepath.Join(power.Folder, "whole")
	u.fresh(t, folder)
	startProgram(t, u.path, u.args(folder)...).kill()
	whole := time.Since(began)
	for round := range *powercuts {
		folder := filepath.Join(power.Folder, fmt.Sprint(round))
		u.fresh(t, folder)
		if _, err := disk.Run("sync -f " + folder); err != nil {
			t.Fatal(err)
		}
		for range 1 + rand.IntN(2) {
			p := launch(t, u.path, u.args(folder)...)
			p.waitSome(1 + rand.N(whole)) // rather early than late
			cutUnder(power, p)
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
