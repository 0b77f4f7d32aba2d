package test

import (
	"flag"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"homeroom/test/disk"
)

// measureLatency switches on the tests of this file: they need a minute and a
// quiet machine. Their figures are in docs/BENCHMARKS.md.
var measureLatency = flag.Bool("latency", false, "measure on the built program how much work holds others up (docs/BENCHMARKS.md)")

// latencyArgs is the command line of the program that is measured.
func latencyArgs(t *testing.T) []string {
	t.Helper()
	if !*measureLatency {
		t.Skip("only with -latency")
	}
	return []string{"-config", writeSettings(t, programSettings), "-data", t.TempDir()}
}

// wantTalk has people talk while something goes on, which must not hold them up
// for more than some time.
func wantTalk(p *program, room string, most time.Duration, something func()) {
	p.T.Helper()
	took := talkDuring(p, room, something)
	p.T.Logf("%s: %d broadcasts, the median %v, p99 %v (at most %v)", room, len(took), median(took), p99(took), most)
	if p99(took) > most {
		p.T.Errorf("%s: the p99 of broadcasts is more than %v", room, most)
	}
}

const (
	manyRooms    = 10_000
	manyMessages = 100_000
	listingTime  = 10 * time.Second
)

// TestListingsHoldNobodyUp: people talk on while others ask for long lists.
func TestListingsHoldNobodyUp(t *testing.T) {
	args := latencyArgs(t)
	p := startProgram(t, buildProgram(t), args...)
	maker := p.Guest("maker")
	maker.Pipeline(manyRooms, func(i int) string { return fmt.Sprintf("#createroom room-%d", i) })
	maker.Ask(`#creategroup posts "" anon`, "@status 0")
	maker.Ask("#joingroup posts", "@status 0")
	maker.Pipeline(manyMessages, func(i int) string { return fmt.Sprintf("#postmessage heading-%d\r\nsome text", i) })
	wantTalk(p, "quiet", 20*time.Millisecond, func() { time.Sleep(listingTime / 2) })
	before := peakMemory(t, p)
	wantTalk(p, "listmessages", 20*time.Millisecond, func() { listAgainAndAgain(p, "messages", "#joingroup posts", "#listmessages", 1, 0) })
	t.Logf("listing %d messages took at most %d KiB more than before", manyMessages, peakMemory(t, p)-before)
	wantTalk(p, "listrooms", 20*time.Millisecond, func() { listAgainAndAgain(p, "rooms", "#leavegroup", "#listrooms", 4, 40*time.Millisecond) })
}

// listAgainAndAgain has some people ask for a list, each once in every so long.
func listAgainAndAgain(p *program, names, first, command string, askers int, every time.Duration) {
	var asking sync.WaitGroup
	var lists, size atomic.Int64
	end := time.Now().Add(listingTime)
	for _, c := range crowd(p, names, askers) {
		c.Ask(first, "@status 0")
		asking.Go(func() {
			for next := time.Now(); next.Before(end); next = later(next.Add(every), time.Now().Add(-every)) {
				time.Sleep(time.Until(next))
				n, err := c.Discard(command)
				if err != nil {
					p.T.Errorf("%s: %v", command, err)
					return
				}
				lists.Add(1)
				size.Store(n)
			}
		})
	}
	asking.Wait()
	p.T.Logf("%s was answered %.1f times a second, with %d bytes", command, float64(lists.Load())/listingTime.Seconds(), size.Load())
}

// later is the later one of two moments.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// TestSlowDisk: a disk that takes 30 ms for each sync, as SD cards do.
func TestSlowDisk(t *testing.T) {
	args := latencyArgs(t)
	disk.NeedRoot(t, "strace")
	p := startProgram(t, "strace", append([]string{
		"-D", "--seccomp-bpf", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync",
		"-e", "inject=fsync,fdatasync:delay_exit=30000", buildProgram(t),
	}, args...)...)
	p.Guest("maker").Ask(`#creategroup posts "" anon`, "@status 0")
	wantTalk(p, "quiet", 20*time.Millisecond, func() { time.Sleep(listingTime / 2) })
	wantTalk(p, "posts", 20*time.Millisecond, func() { postAll(p, 64) })
}

// postAll has some people post, each as fast as it is answered.
func postAll(p *program, posters int) {
	var posting sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	line := "#postmessage heading\r\n" + strings.Repeat("x", 200)
	began := time.Now()
	for _, c := range crowd(p, "poster", posters) {
		c.Ask("#joingroup posts", "@status 0")
		posting.Go(func() {
			for time.Since(began) < listingTime {
				start := time.Now()
				if err := c.Request(line, "@status 0"); err != nil {
					p.T.Errorf("posting: %v", err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(start))
				mu.Unlock()
			}
		})
	}
	posting.Wait()
	rate := float64(len(took)) / time.Since(began).Seconds()
	p.T.Logf("%.0f posts a second, the median %v, p99 %v", rate, median(took), p99(took))
	if rate < 600 || p99(took) > 150*time.Millisecond {
		p.T.Error("less than 600 a second, or a p99 of more than 150 ms")
	}
}
