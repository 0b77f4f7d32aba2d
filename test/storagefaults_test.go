package test

import (
	"flag"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"homeroom/test/disk"
	"homeroom/test/wire"
)

// faultsFrom is where -faults=all begins, so that it can be done in pieces.
var faultsFrom = flag.Int("faultsfrom", 1, "the first system call that TestStorageFaults lets fail with -faults=all")

// faultKind is one way in which the disk fails.
type faultKind struct {
	name, calls, error string
	lasting            bool
	few                []int // the calls that fail in a short test
}

func faultKinds() []faultKind {
	return []faultKind{
		{"sync once", "fsync,fdatasync", "EIO", false, []int{1, 10, 12, 30}},
		{"sync from then on", "fsync,fdatasync", "EIO", true, []int{8}},
		{"write once", "pwrite64", "EIO", false, []int{25, 90}},
		{"write from then on", "pwrite64", "EIO", true, []int{150}},
		{"full once", "pwrite64", "ENOSPC", false, []int{40, 200}},
		{"full from then on", "pwrite64", "ENOSPC", true, []int{120}},
	}
}

// TestStorageFaults lets the disk fail at one call after the other (strace
// counts them for each thread). Nothing is acknowledged that is not there
// afterwards; after a failed sync the server says so once and ends.
func TestStorageFaults(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	disk.NeedRoot(t, "strace")
	path := buildProgram(t)
	for _, kind := range faultKinds() {
		t.Run(kind.name, func(t *testing.T) {
			f := &faultTest{kind: kind, path: path}
			if *faults != "all" {
				for _, n := range kind.few {
					f.round(t, n)
				}
			} else {
				// Threads share the calls in a way of their own each time: three rounds
				// without a failure show that there is no such call.
				for n, missed := *faultsFrom, 0; missed < 3 && !t.Failed(); n++ {
					if missed++; f.round(t, n) {
						missed = 0
					}
				}
			}
			t.Logf("%s: %d rounds, %d calls failed; %d changes acknowledged, %d refused; %d ends by itself, the slowest after %v",
				kind.name, f.rounds, f.failed, f.acknowledged, f.refused, f.ends, f.slowest)
		})
	}
}

// faultTest goes through one kind of fault.
type faultTest struct {
	kind                  faultKind
	path                  string
	rounds, failed        int
	acknowledged, refused int
	ends                  int
	slowest               time.Duration
}

// round runs a server on a fresh folder whose nth call fails, loads it, and
// compares what a healthy server finds afterwards. It reports whether a call failed.
func (f *faultTest) round(t *testing.T, n int) bool {
	f.rounds++
	c := newCrashTest(t, f.path, programSettings, t.TempDir(), false)
	trace := filepath.Join(t.TempDir(), "trace")
	when := fmt.Sprint(n)
	if f.kind.lasting {
		when += "+"
	}
	p := launch(t, "strace", append([]string{
		"-D", "--seccomp-bpf", "-f", "-qq", "-y", "-o", trace, "-e", "trace=" + f.kind.calls,
		"-e", "inject=" + f.kind.calls + ":error=" + f.kind.error + ":when=" + when, f.path,
	}, c.args...)...)
	select {
	case p.Addr = <-p.listening:
		c.workUnderFaults(p)
		for _, w := range c.workers {
			if w.gone && !strings.Contains(f.kind.calls, "sync") {
				t.Errorf("worker %d lost its connection although only writes failed", w.number)
			}
		}
	case <-p.ended:
	case <-time.After(wire.Patience):
		t.Fatalf("the server neither listens nor ends; it says:\n%s", p.logged())
	}
	failed := f.end(t, p, trace)
	f.failed += failed
	for _, w := range c.workers {
		f.acknowledged += w.acknowledged
		f.refused += w.refused
		w.acknowledged = 0
	}
	if t.Failed() {
		t.Errorf("call %s of %s; it says:\n%s", when, f.kind.calls, p.logged())
		return true
	}
	c.finish("call "+when+" of "+f.kind.calls, failed)
	return failed > 0
}

// workUnderFaults lets the workers do a bounded amount of work.
func (c *crashTest) workUnderFaults(p *program) {
	ending := new(atomic.Bool)
	ending.Store(true)
	c.mayFail("@status -1", "@status -2")
	for _, w := range c.workers {
		w.Client, w.killed = c.join(p), ending
		w.gone = w.Client == nil
	}
	c.together(func(w *crashWorker) { w.workThrough(30) })
	c.disconnect()
}

// join connects to a server that may be about to end; nil: it has.
func (c *crashTest) join(p *program) *wire.Client {
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		return nil
	}
	client := wire.New(c.t, conn)
	if _, err := client.ReadErr(); err != nil {
		conn.Close()
		return nil
	}
	return client
}

// workThrough asks for so many changes, whatever comes of them. Some are big, so
// that the log is folded into the database meanwhile.
func (w *crashWorker) workThrough(changes int) {
	for range changes {
		switch {
		case w.gone:
			return
		case !w.entered:
			w.group = ""
			w.entered = w.enter()
		case w.random.IntN(5) == 0:
			w.post("big")
		default:
			w.step()
		}
	}
}

var (
	failedCall = regexp.MustCompile(`(?m)^.*\(INJECTED\)$`)
	toldSync   = regexp.MustCompile(`disk I/O error \(1034\)|sync \S*: input/output error`) // SQLite says it, or the system
	failedSync = regexp.MustCompile(`(?m)^.*sync\(\d+<[^>]*/homeroom\.db[^>/]*>\).*\(INJECTED\)$`)
)

// end waits for the end of a server whose disk fails, checks how it comes and
// returns how many calls have failed.
func (f *faultTest) end(t *testing.T, p *program, trace string) int {
	began := time.Now()
	calls := fileContent(t, trace)
	syncs := len(failedSync.FindAllString(calls, -1))
	if syncs > 0 {
		if code := p.exitCode(); code != exitFailed {
			t.Errorf("exit code %d after a failed sync, want %d", code, exitFailed)
		}
		f.ends++
		f.slowest = max(f.slowest, time.Since(began))
	} else if code := p.endAnyhow(); code != exitDone && !failedCall.MatchString(fileContent(t, trace)) {
		t.Errorf("exit code %d although no call failed", code)
	}
	calls = fileContent(t, trace)
	if n := len(toldSync.FindAllString(p.logged(), -1)); len(failedSync.FindAllString(calls, -1)) > 0 && n != 1 {
		t.Errorf("the log speaks of the failed sync %d times, want once:\n%s", n, calls)
	}
	return len(failedCall.FindAllString(calls, -1))
}

// endAnyhow stops a server that may have ended by itself.
func (p *program) endAnyhow() int {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be gone
	return p.exitCode()
}
