package test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"homeroom/test/disk"
)

// TestRotateFaults: a rotation is killed at, or meets an error in, one system call
// after the other that changes the disk. Nothing is lost, a server opens what is
// left, and the next rotation works.
func TestRotateFaults(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	disk.NeedRoot(t, "strace")
	path, made := buildProgram(t), t.TempDir()
	all := fillFolder(t, made, 60)
	eachCallFault(t, func(f callFault, n int) bool {
		folder := filepath.Join(t.TempDir(), "data")
		copyFolder(t, made, folder)
		p, trace := launchFaulty(t, f, n, path, "key", "rotate", "-data", folder)
		code := p.exitCode()
		wantContents(t, folder, all)
		if code, said, why := run(t, "key", "rotate", "-data", folder); code != exitDone {
			t.Errorf("the next rotation: exit code %d, %s%s", code, said, why)
		}
		wantContents(t, folder, all)
		if wantChecked(t, folder); t.Failed() {
			t.Errorf("%s at call %d of %s; it says:\n%s", f.fault, n, f.calls, p.logged())
		}
		return code == -1 || strings.Contains(fileContent(t, trace), "INJECTED")
	})
}

// TestRotateKilled: a rotation that is killed at any moment loses nothing, the
// server starts all the same, and the next rotation finishes what it began.
func TestRotateKilled(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	folder := t.TempDir()
	all := fillFolder(t, folder, 2000)
	cutRotations(t, folder, all, 5**kills, (*program).kill)
}

// TestPowerCutRotate: where the power fails during a change of the key, nothing
// is lost, the server starts all the same, and the next change finishes it.
func TestPowerCutRotate(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	power := disk.NewPower(t)
	folder := filepath.Join(power.Folder, "data")
	all := fillFolder(t, folder, 2000)
	cutRotations(t, folder, all, *powercuts, func(p *program) { cutUnder(power, p) })
	wantChecked(t, folder)
}

// cutRotations begins one rotation after the other and has each cut off at any
// moment.
func cutRotations(t *testing.T, folder string, all []string, rounds int, cut func(*program)) {
	t.Helper()
	path := buildProgram(t)
	rotate := func() *program { return launch(t, path, "key", "rotate", "-data", folder) }
	keys := func() int { return askDatabase(t, folder, "SELECT count(*) FROM keys") }
	began := time.Now()
	if p := rotate(); p.exitCode() != exitDone {
		t.Fatalf("the first rotation: %s", p.logged())
	}
	whole := time.Since(began)
	interrupted := 0
	for round := range rounds {
		p := rotate()
		p.waitSome(whole)
		cut(p)
		switch n := keys(); n {
		case 1:
		case 2:
			interrupted++
		default:
			t.Fatalf("round %d: the database says of its keys that there are %d", round, n)
		}
		wantContents(t, folder, all)
		if round%3 == 0 { // a server finishes nothing, and goes on with both keys
			p := startOn(t, folder)
			wantSameContents(t, contents(p), all)
			if code := p.terminate(); code != exitDone {
				t.Fatalf("round %d: exit code %d", round, code)
			}
		}
		if round%5 == 4 {
			if p := rotate(); p.exitCode() != exitDone {
				t.Fatalf("round %d: the rotation after it: %s", round, p.logged())
			}
			if n := keys(); n != 1 {
				t.Fatalf("round %d: after a whole rotation %d keys are left", round, n)
			}
		}
		if t.Failed() {
			return
		}
	}
	wantContents(t, folder, all)
	t.Logf("%d rounds, %d of them cut off in between", rounds, interrupted)
}
