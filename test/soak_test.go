package test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"homeroom/test/wire"
)

// soak is how long TestSoak keeps the program busy:
// go test -run TestSoak -timeout 0 -v ./test -soak=1h.
var soak = flag.Duration("soak", 3*time.Second, "how long TestSoak keeps the program busy")

// mostLog is how large the write-ahead log may get: what a checkpoint waits for, and
// as much again while it runs.
const mostLog = 2 * 4000 * (1024 + 24)

// soakUsers is how many users TestSoak has.
const soakUsers = 100

// TestSoak: under 100 users who do all kinds of things the program's memory, open
// files, and the files that it writes stay bounded, and nobody waits long.
func TestSoak(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	settings := writeSettings(t, programSettings+"[log]\nto = \"file\"\nsize_kib = 16\nkeep = 2\n")
	p := launch(t, buildProgram(t), "-config", settings, "-data", data, "-listen", "127.0.0.1:0")
	waitUntilServing(t, data, nil)
	s := &soakTest{t: t, data: data, addr: soakAddress(t, data)}
	stop := make(chan struct{})
	var users sync.WaitGroup
	for i := range soakUsers {
		users.Go(func() { s.use(i, stop) })
	}
	began := time.Now()
	var samples []soakSample
	for len(samples) < 20 {
		<-time.After(*soak / 20)
		samples = append(samples, s.sample(p))
	}
	close(stop)
	users.Wait()
	s.judge(samples, time.Since(began))
	if code := p.terminate(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
}

// soakAddress is where the program listens, as its own log says.
func soakAddress(t *testing.T, data string) string {
	t.Helper()
	for began := time.Now(); time.Since(began) < wire.Patience; {
		text, _ := os.ReadFile(filepath.Join(data, logName))
		_, rest, _ := strings.Cut(string(text), "listening on ")
		if addr, _, found := strings.Cut(rest, ";"); found {
			return addr
		}
	}
	t.Fatal("the log does not say where it listens")
	return ""
}

// soakTest is what the users of TestSoak share.
type soakTest struct {
	t          *testing.T
	data, addr string
	done       atomic.Int64 // things that users did
	longest    atomic.Int64 // that one took, in ns
}

func (s *soakTest) sample(p *program) soakSample {
	s.t.Helper()
	size := func(pattern string) (kib int) {
		names, _ := filepath.Glob(filepath.Join(s.data, pattern))
		for _, name := range names {
			if info, err := os.Stat(name); err == nil {
				kib += int(info.Size() >> 10)
			}
		}
		return kib
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		s.t.Fatalf("the program is gone: %v; it said:\n%s", err, p.logged())
	}
	return soakSample{memoryOf(s.t, p), len(files), size(databaseFile + "-wal"), size("homeroom.log*"), size(databaseFile)}
}

// judge holds the second half of the samples against the first.
func (s *soakTest) judge(samples []soakSample, took time.Duration) {
	s.t.Helper()
	var early, late soakSample
	for i, sample := range samples {
		most := &late
		if i < len(samples)/2 {
			most = &early
		}
		most.rss, most.files, most.wal = max(most.rss, sample.rss), max(most.files, sample.files), max(most.wal, sample.wal)
		most.log, most.database = max(most.log, sample.log), max(most.database, sample.database)
	}
	s.t.Logf("%v: %d things done, the longest took %v", took.Round(time.Second), s.done.Load(), time.Duration(s.longest.Load()))
	s.t.Logf("most in the first half:  %+v (memory, files, KiB of -wal, log, database)", early)
	s.t.Logf("most in the second half: %+v", late)
	if late.rss > early.rss+early.rss/5+8<<10 {
		s.t.Errorf("the memory grows from %d to %d KiB", early.rss, late.rss)
	}
	if late.files > soakUsers+60 {
		s.t.Errorf("%d files are open", late.files)
	}
	if late.wal > mostLog>>10 {
		s.t.Errorf("the database's log has %d KiB", late.wal)
	}
	if late.log > 3*(16+1) {
		s.t.Errorf("the log has %d KiB", late.log)
	}
	if s.done.Load() < soakUsers {
		s.t.Errorf("%d things were done", s.done.Load())
	}
}

// use is one user until stop: connections, each with some things that are done.
func (s *soakTest) use(number int, stop <-chan struct{}) {
	random := rand.New(rand.NewPCG(uint64(number), 1))
	for {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			s.t.Errorf("user %d cannot connect: %v", number, err)
			return
		}
		c := wire.New(s.t, conn)
		c.Read() // the hello
		c.Send(fmt.Sprintf("#login anon user%d", number))
		if lines := c.Barrier(); !slices.Contains(lines, "@status 0") { // others may have spoken before the reply
			s.t.Errorf("user %d logged in and was told %q", number, lines)
			return
		}
		c.Send(`#creategroup news "" anon`, "#joingroup news", "#events on")
		for range 20 + random.IntN(100) {
			began := time.Now()
			c.Send(soakLines(random)...)
			c.Barrier()
			s.done.Add(1)
			for took := int64(time.Since(began)); took > s.longest.Load(); {
				s.longest.Store(took)
			}
			select {
			case <-stop:
				conn.Close()
				return
			case <-time.After(time.Duration(random.IntN(4000)) * time.Millisecond / time.Duration(1+int64(time.Minute / *soak))):
			}
		}
		c.Send("#quit")
		for err := error(nil); err == nil; { // the end of the connection says that the name is free
			_, err = c.ReadErr()
		}
		conn.Close()
	}
}

// soakSample is how the program is at a moment.
type soakSample struct{ rss, files, wal, log, database int }

// soakLines is one thing that a user does.
func soakLines(random *rand.Rand) []string {
	name := fmt.Sprintf("room%d", random.IntN(50))
	switch random.IntN(12) {
	case 0, 1, 2:
		return []string{"#broadcast hello everybody, this is a line of text"}
	case 3:
		return []string{fmt.Sprintf("#sendto user%d hello", random.IntN(soakUsers))}
	case 4, 5:
		return []string{fmt.Sprintf("#postmessage heading 0 2 %d", 1+random.IntN(60)), "one", "two"}
	case 6:
		return []string{"#listmessages 0", "#listgroups"}
	case 7:
		return []string{"#createroom " + name, "#changeroom " + name}
	case 8:
		return []string{"#changeroom Home", "#rmroom " + name}
	case 9:
		return []string{"#listrooms", "#listusers", "#whoami"}
	case 10:
		return []string{"#login regd nobody wrong", "#stats", "#nothing"}
	}
	return []string{"#changeroom " + name, "#roomkick user1", "#userstatus"}
}
