package test

import (
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"homeroom/test/wire"
)

// measureLogins switches on the tests of this file: they need minutes and a
// quiet machine. Their figures are in docs/RELIABILITY.md, Logins.
var measureLogins = flag.Bool("logins", false, "measure logins on the built program (docs/RELIABILITY.md)")

// startMeasured starts the built program with the hashing that it chooses itself.
func startMeasured(t *testing.T) *program {
	t.Helper()
	if !*measureLogins {
		t.Skip("only with -logins")
	}
	settings := strings.Replace(programSettings, "iterations = 16", "iterations = 0", 1)
	return startProgram(t, buildProgram(t), "-config", writeSettings(t, settings), "-data", t.TempDir())
}

// median and p99 are of durations that they sort.
func median(all []time.Duration) time.Duration { return quantile(all, 0.5) }
func p99(all []time.Duration) time.Duration    { return quantile(all, 0.99) }

func quantile(all []time.Duration, q float64) time.Duration {
	slices.Sort(all)
	return all[min(len(all)-1, int(q*float64(len(all))))].Round(time.Microsecond)
}

// took is how long a line waits for its answer, of which it expects the start.
func took(c *wire.Client, line, want string) time.Duration {
	c.T.Helper()
	start := time.Now()
	c.Send(line)
	got := c.Read()
	took := time.Since(start)
	if !strings.HasPrefix(got, want) {
		c.T.Fatalf("%q: got %q, want %q", line, got, want)
	}
	return took
}

// TestLoginTiming: how long an answer takes does not say whether a name exists.
// Known and unknown names take turns, so that a busy machine is busy for both.
func TestLoginTiming(t *testing.T) {
	p := startMeasured(t)
	p.Guest("guest").Ask("#createlogin alice pw real mail", "@status 0")
	c := p.Dial()
	t.Logf("%s (after salt)", c.Salt("alice"))
	for what, lines := range map[string][2]string{
		"#login regd":      {"#login regd alice wrong|@status 3002", "#login regd nobody wrong|@status 3001"},
		"#auth first step": {`#auth SCRAM-SHA-256 "n,,n=alice,r=abc"|@ret`, `#auth SCRAM-SHA-256 "n,,n=nobody,r=abc"|@ret`},
	} {
		var times [2][]time.Duration
		for range 200 {
			for i, text := range lines {
				line, want, _ := strings.Cut(text, "|")
				times[i] = append(times[i], took(c, line, want))
			}
		}
		known, unknown := median(times[0]), median(times[1])
		apart := math.Abs(float64(unknown-known)) / float64(known) * 100
		t.Logf("%s, medians of 200: a known name %v, an unknown one %v, %.1f %% apart", what, known, unknown, apart)
		if apart > 10 {
			t.Errorf("%s: more than 10 %% apart", what)
		}
	}
}

// rushers is how many log in at once.
const rushers = 100

// TestLoginRush: a hundred people who log in at the same moment neither take the
// machine's memory nor slow down those who are talking.
func TestLoginRush(t *testing.T) {
	for _, cores := range []string{"all", "1"} {
		t.Run("cores="+cores, func(t *testing.T) {
			if cores != "all" {
				t.Setenv("GOMAXPROCS", cores) // the program's; this process has read it already
			}
			p := startMeasured(t)
			maker := p.Guest("maker")
			for i := range rushers {
				maker.Ask(fmt.Sprintf("#createlogin user%d pw real mail", i), "@status 0")
			}
			t.Logf("%s (after salt)", maker.Salt("user0"))
			quiet := talkDuring(p, "quiet", func() { time.Sleep(5 * time.Second) })
			var logins []time.Duration
			var refused int64
			start := time.Now()
			busy := talkDuring(p, "busy", func() { logins, refused = rush(p) })
			t.Logf("%d logins took %v, the median %v, the last %v; 3006 came %d times", rushers,
				time.Since(start).Round(time.Millisecond), median(logins), slices.Max(logins).Round(time.Millisecond), refused)
			t.Logf("a broadcast takes %v (p99 %v, longest %v); before the logins %v (p99 %v)",
				median(busy), p99(busy), slices.Max(busy), median(quiet), p99(quiet))
			peak := peakMemory(t, p)
			t.Logf("the program never had more than %d KiB", peak)
			if p99(busy) > 200*time.Millisecond || peak > 256<<10 {
				t.Error("more than 200 ms or 256 MiB")
			}
		})
	}
}

// rush logs rushers people in at the same moment. Those that get 3006 try again a
// little later, as a program does.
func rush(p *program) (took []time.Duration, refused int64) {
	var running sync.WaitGroup
	var again atomic.Int64
	took = make([]time.Duration, rushers)
	together := make(chan struct{})
	for i := range rushers {
		c := p.Dial()
		running.Go(func() {
			defer c.Conn.Close()
			<-together
			start := time.Now()
			err := c.Request("#login regd user"+strconv.Itoa(i)+" pw", "@status 0")
			for err != nil && strings.Contains(err.Error(), `got "@status 3006"`) {
				again.Add(1)
				time.Sleep(200 * time.Millisecond)
				err = c.Request("#login regd user"+strconv.Itoa(i)+" pw", "@status 0")
			}
			if took[i] = time.Since(start); err != nil {
				p.T.Errorf("login %d: %v", i, err)
			}
		})
	}
	close(together)
	running.Wait()
	return took, again.Load()
}

// talkDuring has 20 people talk in a room of their own, ten times a second each,
// while something goes on, and returns how long each broadcast took until it was
// answered; they hear each other, too.
func talkDuring(p *program, room string, something func()) (took []time.Duration) {
	talkers := crowd(p, room, 20)
	talkers[0].Ask("#createroom "+room, "@status 0")
	over := make(chan struct{})
	var running sync.WaitGroup
	var mu sync.Mutex
	for _, c := range talkers {
		c.Ask("#changeroom "+room, "@status 0")
	}
	for _, c := range talkers {
		running.Go(func() {
			pace := time.NewTicker(100 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-over:
					return
				case <-pace.C:
				}
				start := time.Now()
				if err := c.Request("#broadcast hello", "@status 0"); err != nil {
					p.T.Errorf("talking: %v", err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(start))
				mu.Unlock()
			}
		})
	}
	something()
	close(over)
	running.Wait()
	return took
}

// peakMemory is the most memory that a program ever had, in KiB.
func peakMemory(t testing.TB, p *program) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib
}
