package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"homeroom/test/disk"
	"homeroom/test/wire"
)

// TestFullDiskServed: while the disk is full, what cannot be stored is answered
// -2 and is nowhere, and reading and talking go on; once there is space, changes
// are stored again. It drives the program as it is shipped.
func TestFullDiskServed(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	folder := disk.Small(t)
	c := newCrashTest(t, buildProgram(t), programSettings, filepath.Join(folder, "data"), false)
	p := startProgram(t, c.path, c.args...)
	c.connect(p)
	c.together(func(w *crashWorker) { w.workThrough(20) })
	reader := p.Member("reader")
	w := c.workers[0]
	reader.Ask("#joingroup "+w.group, "@status 0")

	filler := filepath.Join(folder, "filler")
	disk.Fill(t, filler)
	c.mayFail("@status -2")
	c.together(func(w *crashWorker) {
		for i := 0; w.refused == 0 && i < 1000 && !w.gone; i++ {
			w.post("big")
		}
		w.workThrough(20)
	})
	refused := 0
	for _, w := range c.workers {
		if w.refused == 0 || w.gone {
			t.Errorf("worker %d: %d changes were refused; is it gone? %v", w.number, w.refused, w.gone)
		}
		refused += w.refused
	}
	c.readAndTalk(p, reader, w)

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	took := w.untilStored()
	c.mayFail()
	c.together(func(w *crashWorker) { w.workThrough(20) })
	c.disconnect()
	if code := p.terminate(); code != exitDone {
		t.Errorf("exit code %d; it says:\n%s", code, p.logged())
	}
	c.finish("full disk", 1)
	t.Logf("%d changes were refused; the next one was stored %v after there was space", refused, took)
}

// readAndTalk does what needs no space.
func (c *crashTest) readAndTalk(p *program, reader *wire.Client, w *crashWorker) {
	reader.Ask("#broadcast hello", `@mess #broadcast reader "hello"`, "@status 0")
	for heading, m := range w.messages {
		if m.fate == present && m.group == w.group && !m.read {
			c.readMessage(reader, heading, m, repliesOf(reader, heading))
			break
		}
	}
	p.Dial().Ask("#login regd reader pw", "@status 0")
}

// repliesOf is how many answers a message of the group has, as it is listed.
func repliesOf(c *wire.Client, heading string) string { return c.Listed("#listmessages", heading)[4] }

// spaceSeen is how soon changes are stored again once there is space, as promised.
const spaceSeen = 10 * time.Second

// untilStored asks for changes until one is stored, and returns how long that
// took.
func (w *crashWorker) untilStored() time.Duration {
	began := time.Now()
	for stored := w.acknowledged; w.acknowledged == stored; {
		if w.post("m"); time.Since(began) > spaceSeen || w.gone {
			w.T.Fatalf("nothing is stored %v after there was space again", time.Since(began))
		}
	}
	return time.Since(began)
}

// connect connects all workers.
func (c *crashTest) connect(p *program) {
	for _, w := range c.workers {
		w.Client, w.killed, w.group = p.Dial(), new(atomic.Bool), ""
	}
}

// disconnect takes note of what the workers saw.
func (c *crashTest) disconnect() {
	for _, w := range c.workers {
		if w.Client != nil {
			w.Conn.Close()
		}
		for id, heading := range w.seen {
			c.noteNumber(id, heading)
		}
		clear(w.seen)
	}
}

// mayFail says how changes may be refused from now on.
func (c *crashTest) mayFail(how ...string) {
	for _, w := range c.workers {
		w.mayFail = how
	}
}

// together has all workers do something at the same time.
func (c *crashTest) together(do func(*crashWorker)) {
	var running sync.WaitGroup
	for _, w := range c.workers {
		running.Go(func() { do(w) })
	}
	running.Wait()
}

// TestFullDiskStart: on a disk on which nothing is free a server that was killed, or that
// has ended, starts again and serves what is stored; only a new one is not begun, and the
// program says why.
func TestFullDiskStart(t *testing.T) {
	t.Parallel()
	for name, folder := range map[string]func(testing.TB) string{"tmpfs": disk.Small, "ext4": disk.SmallExt4} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			small, path := folder(t), buildProgram(t)
			settings, filler := writeSettings(t, programSettings), filepath.Join(small, "filler")
			serve := func(folder string) []string {
				return []string{"-config", settings, "-data", filepath.Join(small, folder)}
			}
			p := startProgram(t, path, serve("used")...)
			p.Member("alice")
			p.kill()
			for i := range 6 {
				disk.Fill(t, filler+strconv.Itoa(i)) // with what the end of the last one gave back
				if why := refusal(t, path, serve("new")...); !strings.Contains(why, "the disk is full") {
					t.Errorf("a start in a new folder says %q", why)
				}
				p = startProgram(t, path, serve("used")...)
				alice := p.Dial()
				alice.Ask("#login regd alice pw", "@status 0")
				alice.Ask("#createroom den", "@status -2")
				alice.Ask("#broadcast hello", `@mess #broadcast alice "hello"`, "@status 0")
				if i%2 == 0 {
					p.terminate() // it may not be able to save when alice was last here
				} else {
					p.kill()
				}
			}
			for i := range 6 {
				if err := os.Remove(filler + strconv.Itoa(i)); err != nil {
					t.Fatal(err)
				}
			}
			startProgram(t, path, serve("new")...).Member("bob")
			p = startProgram(t, path, serve("used")...)
			alice := p.Dial()
			alice.Ask("#login regd alice pw", "@status 0")
			alice.Ask("#createroom den", "@status 0")
		})
	}
}

// TestPostsFillDisk fills a disk by posts. Before all of it is taken what users store is
// refused; the rest goes on, also over restarts. When posts end, or an administrator
// deletes them, there is space again.
func TestPostsFillDisk(t *testing.T) {
	t.Parallel()
	for name, folder := range map[string]func(testing.TB) string{"tmpfs": disk.Small, "ext4": disk.SmallExt4} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, data := buildProgram(t), filepath.Join(folder(t), "data")
			line := []string{"-config", writeSettings(t, strings.Replace(programSettings, "[limits]\n", "[limits]\nstore_mib_each = 0\n", 1)), "-data", data}
			p := startProgram(t, path, line...)
			alice := p.Member("alice")
			host := dialFolder(t, data)
			host.Ask("#role alice admin", "@status 0")
			for _, group := range []string{"short", "long"} {
				alice.Ask("#creategroup "+group, "@status 0")
			}

			fillByPosts(alice, "short", "20")
			wantReserve(t, data)
			alice.Ask("#createroom den", "@status -2")
			alice.Ask("#ban mallory 192.0.2.1", "@status -3")
			alice.Ask("#ban 192.0.2.1", "@status 0")
			for _, kill := range []bool{false, true} {
				if kill {
					p.kill()
				} else {
					p.terminate()
				}
				p = startProgram(t, path, line...)
				alice = p.Dial()
				alice.Ask("#login regd alice pw", "@status 0")
				alice.Ask("#broadcast hello", `@mess #broadcast alice "hello"`, "@status 0")
			}
			alice.Ask("#unban 192.0.2.1", "@status 0")
			untilPosted(alice, "short") // they end

			fillByPosts(alice, "long", "86400")
			wantReserve(t, data)
			alice.Ask("#leavegroup", "@status 0")
			alice.Ask("#rmgroup long", "@status 0")
			untilPosted(alice, "short")
			if code := p.terminate(); code != exitDone {
				t.Errorf("exit code %d; it says:\n%s", code, p.logged())
			}
			if code, out, complaint := run(t, append([]string{"check"}, line...)...); code != exitDone {
				t.Errorf("check: %d\n%s%s", code, out, complaint)
			}
		})
	}
}

// fillByPosts posts to a group what lives for so many seconds until that is refused.
func fillByPosts(c *wire.Client, group, secs string) {
	c.T.Helper()
	c.Ask("#joingroup "+group, "@status 0")
	for size, i := 200, 0; i < 2000; i++ {
		c.Send(fmt.Sprint("#postmessage big 0 ", size, " ", secs, strings.Repeat("\r\n"+strings.Repeat("x", 900), size)))
		switch line := c.Read(); line {
		case "@status 0":
		case "@status -2":
			if size == 1 {
				return
			}
			size = 1 // what is left is for smaller ones
		default:
			c.T.Fatalf("a post is answered %q", line)
		}
	}
	c.T.Fatal("the disk does not get full")
}

// untilPosted posts until there is space for it.
func untilPosted(c *wire.Client, group string) {
	c.T.Helper()
	c.Ask("#joingroup "+group, "@status 0")
	text := "#postmessage big 0 200 10" + strings.Repeat("\r\n"+strings.Repeat("x", 900), 200)
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if c.Send(text); c.Read() == "@status 0" {
			return
		}
		if time.Since(began) > wire.Patience {
			c.T.Fatal("there is no space again")
		}
	}
}

// wantReserve checks that posts have left something of a disk: what administrators, and
// the next start, need.
func wantReserve(t testing.TB, folder string) {
	t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil {
		t.Fatal(err)
	}
	if free := int64(s.Bavail) * s.Bsize; free < 1<<20 || free > int64(s.Blocks)*s.Bsize/3 {
		t.Errorf("%d bytes are free", free)
	}
}
