package test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"homeroom/test/disk"
	"homeroom/test/wire"
)

// watchedProgram is the program under strace, with a service manager.
type watchedProgram struct {
	*program
	manager     *wire.Manager
	data, trace string
}

// folderState returns the size and the time of change of each file of a folder.
func folderState(folder string) map[string]string {
	state := map[string]string{}
	paths, _ := filepath.Glob(filepath.Join(folder, "*"))
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			state[path] = fmt.Sprint(info.Size(), info.ModTime().UnixNano())
		}
	}
	return state
}

// beQuiet waits until nothing in the folder has changed for so long.
func (w *watchedProgram) beQuiet(long time.Duration) {
	w.T.Helper()
	state, since := folderState(w.data), time.Now()
	for began := since; time.Since(since) < long; w.hearFor(100 * time.Millisecond) {
		if now := folderState(w.data); !maps.Equal(now, state) {
			state, since = now, time.Now()
		}
		if time.Since(began) > wire.Patience {
			w.T.Fatal("the program goes on changing its folder")
		}
	}
}

// hearFor listens to what the service manager is told for that time, and returns
// how often.
func (w *watchedProgram) hearFor(long time.Duration) (beats int) {
	w.T.Helper()
	for began := time.Now(); time.Since(began) < long; beats++ {
		if got := w.manager.Heard(); got != "WATCHDOG=1" {
			w.T.Fatalf("the program says %q", got)
		}
	}
	return beats
}

// writtenBytes is what the kernel counts as written to disks.
func (w *watchedProgram) writtenBytes() int {
	w.T.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", w.cmd.Process.Pid))
	_, rest, _ := strings.Cut(string(text), "\nwrite_bytes: ")
	n, parsed := strconv.Atoi(strings.SplitN(rest, "\n", 2)[0])
	if err != nil || parsed != nil {
		w.T.Fatalf("what was written: %v, %v", err, parsed)
	}
	return n
}

// calls is how many system calls began in that time, and those among them that
// name something in the data folder.
func (w *watchedProgram) calls(from, to time.Time) (all int, touching []string) {
	w.T.Helper()
	trace, err := os.ReadFile(w.trace)
	if err != nil {
		w.T.Fatal(err)
	}
	for _, call := range tracedCall.FindAllStringSubmatch(string(trace), -1) {
		at, err := strconv.ParseFloat(call[1], 64)
		if err != nil {
			w.T.Fatal(err)
		}
		if at < float64(from.UnixMicro())/1e6 || at > float64(to.UnixMicro())/1e6 {
			continue
		}
		if all++; strings.Contains(call[0], w.data) {
			touching = append(touching, call[0])
		}
	}
	return all, touching
}

func startWatched(t *testing.T, path, mode string) *watchedProgram {
	t.Helper()
	folder := t.TempDir()
	w := &watchedProgram{data: filepath.Join(folder, "data"), trace: filepath.Join(folder, "trace")}
	socket := filepath.Join(folder, "notify")
	w.manager = wire.NewManager(t, socket)
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "900000")
	text := programSettings + "[persist]\nmode = \"" + mode + "\"\nevery = \"100ms\"\n[log]\nto = \"file\"\n"
	w.program = launch(t, "strace", "-D", "--seccomp-bpf", "-f", "-qq", "-y", "-ttt", "-o", w.trace, "-e", "trace=%file,%desc",
		path, "-config", writeSettings(t, text), "-data", w.data)
	if got := w.manager.Heard(); got != "READY=1" {
		t.Fatalf("the program says %q first", got)
	}
	m := connectText.FindStringSubmatch(fileContent(t, filepath.Join(w.data, logName)))
	if m == nil {
		t.Fatalf("the log does not say where it listens; on stderr: %s", w.logged())
	}
	w.Addr = m[1] + ":" + m[2]
	return w
}

var tracedCall = regexp.MustCompile(`(?m)^\d+ +(\d+\.\d+) .*$`)

var idleFor = flag.Duration("idle", 2*time.Second, "how long the shipped program is watched while it is idle")

// TestIdleProgram: the shipped program, with somebody on it, a watchdog that is
// fed and a log in the same folder, does not touch its folder while it is idle,
// by any system call. (It is not parallel: it sets the environment.)
func TestIdleProgram(t *testing.T) {
	onlyLong(t)
	disk.NeedRoot(t, "strace")
	path := buildProgram(t)
	for _, mode := range []string{"commit", "periodic"} {
		t.Run(mode, func(t *testing.T) {
			watched := startWatched(t, path, mode)
			c := watched.Member("idler")
			c.Ask(`#creategroup News "" anon`, "@status 0")
			c.Ask("#joingroup News", "@status 0")
			c.Ask("#postmessage heading\r\ntext", "@status 0")
			watched.beQuiet(2 * time.Second)
			before, began := watched.writtenBytes(), time.Now()
			beats := watched.hearFor(*idleFor)
			ended := time.Now()
			if after := watched.writtenBytes(); after != before {
				t.Errorf("it has written %d bytes to disks", after-before)
			}
			c.Ask("#postmessage heading\r\ntext", "@status 0")
			if code := watched.terminate(); code != exitDone {
				t.Errorf("exit code %d; log:\n%s", code, watched.logged())
			}
			calls, touched := watched.calls(began, ended)
			t.Logf("in %v: %d calls, %d feedings of the watchdog, %d calls that touch the folder", ended.Sub(began), calls, beats, len(touched))
			if calls == 0 || beats == 0 || len(touched) > 0 {
				t.Errorf("calls that touch the folder:\n%s", strings.Join(touched, "\n"))
			}
			if _, all := watched.calls(began, time.Now()); len(all) == 0 {
				t.Error("of a post the trace shows nothing")
			}
		})
	}
}
