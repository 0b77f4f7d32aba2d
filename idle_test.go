package main

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"homeroom/test/wire"
)

var idleFor = flag.Duration("idle", 2*time.Second, "how long the shipped program is watched while it is idle")

// longAgo is a time that no file gets by being written to.
var longAgo = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)

// folderState is each file of a folder with its times and content. Whatever is
// written changes it, also where the same is written again.
func folderState(t testing.TB, folder string) map[string]string {
	t.Helper()
	state := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		state[path] = fmt.Sprint(info.Mode(), info.Size(), info.ModTime().UnixNano())
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			state[path] += fmt.Sprintf(" %x", sha256.Sum256(text))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// age gives everything in a folder an old time.
func age(t testing.TB, folder string) {
	t.Helper()
	for path := range folderState(t, folder) {
		if err := os.Chtimes(path, longAgo, longAgo); err != nil {
			t.Fatal(err)
		}
	}
}

// writesIn lets so many steps pass, with a heartbeat in each as a watchdog asks
// for them, and returns after which of them something had been written.
func (b *bubble) writesIn(steps int, step time.Duration) (after []int) {
	age(b.t, b.cfg.Server.Data)
	state := folderState(b.t, b.cfg.Server.Data)
	for n := 1; n <= steps; n++ {
		b.pass(step)
		b.store.heartbeat()
		if now := folderState(b.t, b.cfg.Server.Data); !maps.Equal(now, state) {
			after = append(after, n)
			age(b.t, b.cfg.Server.Data)
			state = folderState(b.t, b.cfg.Server.Data)
		}
	}
	return after
}

// populate makes an account, a group and a message, and leaves their maker on.
func (b *bubble) populate() {
	c := b.guest("maker")
	c.Ask(`#createlogin maker pw "Real Name" mail@example.org`, "@status 0")
	c.Ask(`#creategroup News "" anon`, "@status 0")
	c.Ask("#joingroup News", "@status 0")
	c.Ask("#postmessage heading\r\ntext", "@status 0")
}

const minutesADay = 24 * 60

// TestIdleDay: a server on which people are and do nothing writes nothing in a
// day, and syncs nothing.
func TestIdleDay(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"commit", "periodic"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(firstWall.AddDate(1, 0, 0))) // a bubble begins in 2000
				cfg := testConfig(t)
				cfg.Persist.Mode = mode
				b := startBubble(t, cfg)
				b.populate()
				b.pass(time.Minute)
				if after := b.writesIn(minutesADay, time.Minute); len(after) > 0 {
					t.Errorf("something is written after minutes %v of a day", after)
				}
			})
		})
	}
}

// TestIdleDayWithoutTime: a machine that never learns the time of day keeps its
// clock after ten minutes, then each time after twice as long: 8 times in a day,
// 8 times more in a year.
func TestIdleDayWithoutTime(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		after := b.writesIn(minutesADay, time.Minute)
		want := []int{10, 20, 40, 80, 160, 320, 640, 1280}
		if len(after) != len(want) {
			t.Fatalf("something is written after minutes %v, want %v", after, want)
		}
		for i := range want {
			if after[i] < want[i] || after[i] > want[i]+1 { // the savers take two seconds
				t.Errorf("something is written after minutes %v, want %v", after, want)
			}
		}
		if days := b.writesIn(364, 24*time.Hour); len(days) != 8 {
			t.Errorf("in the rest of the year something is written after days %v", days)
		}
	})
}

// TestIdleProgram: the shipped program, with somebody on it, a watchdog that is
// fed and a log in the same folder, does not touch its folder while it is idle,
// by any system call. (It is not parallel: it sets the environment.)
func TestIdleProgram(t *testing.T) {
	needRoot(t, "strace")
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

// watchedProgram is the program under strace, with a service manager.
type watchedProgram struct {
	*program
	manager     *fakeManager
	data, trace string
}

func startWatched(t *testing.T, path, mode string) *watchedProgram {
	t.Helper()
	folder := t.TempDir()
	w := &watchedProgram{data: filepath.Join(folder, "data"), trace: filepath.Join(folder, "trace")}
	socket := filepath.Join(folder, "notify")
	w.manager = startManager(t, socket)
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "900000")
	text := programSettings + "[persist]\nmode = \"" + mode + "\"\nevery = \"100ms\"\n[log]\nto = \"file\"\n"
	w.program = launch(t, "strace", "-D", "--seccomp-bpf", "-f", "-qq", "-y", "-ttt", "-o", w.trace, "-e", "trace=%file,%desc",
		path, "-config", writeSettings(t, text), "-data", w.data)
	if got := w.manager.heard(); got != "READY=1" {
		t.Fatalf("the program says %q first", got)
	}
	m := connectText.FindStringSubmatch(readLog(t, filepath.Join(w.data, logName)))
	if m == nil {
		t.Fatalf("the log does not say where it listens; on stderr: %s", w.logged())
	}
	w.Addr = m[1] + ":" + m[2]
	return w
}

// beQuiet waits until nothing in the folder has changed for so long.
func (w *watchedProgram) beQuiet(long time.Duration) {
	w.T.Helper()
	state, since := folderState(w.T, w.data), time.Now()
	for began := since; time.Since(since) < long; w.hearFor(100 * time.Millisecond) {
		if now := folderState(w.T, w.data); !maps.Equal(now, state) {
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
		if got := w.manager.heard(); got != "WATCHDOG=1" {
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

var tracedCall = regexp.MustCompile(`(?m)^\d+ +(\d+\.\d+) .*$`)

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
