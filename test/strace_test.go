package test

import (
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

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
// each that there is. once reports whether there was such a call.
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

// faults is how many calls of each kind TestStorageFaults lets fail, one after
// the other: go test -run TestStorageFaults -timeout 0 ./test -faults=all.
var faults = flag.String("faults", "few", "few, or all: how many system calls TestStorageFaults lets fail")
