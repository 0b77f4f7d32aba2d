package test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
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

// TestFullDiskStart: on a full disk nothing new is begun, and the program says
// why; what is stored stays, and is served again once there is space.
func TestFullDiskStart(t *testing.T) {
	t.Parallel()
	small, path := disk.Small(t), buildProgram(t)
	settings, filler := writeSettings(t, programSettings), filepath.Join(small, "filler")
	serve := func(folder string) []string {
		return []string{"-config", settings, "-data", filepath.Join(small, folder)}
	}
	p := startProgram(t, path, serve("used")...)
	p.Member("alice")
	p.kill()
	disk.Fill(t, filler)
	if why := refusal(t, path, serve("new")...); !strings.Contains(why, "the disk is full") {
		t.Errorf("a start in a new folder says %q", why)
	}
	p = launch(t, path, serve("used")...)
	select {
	case <-p.listening: // what is free in the last pages may be enough
		p.kill()
	case <-p.ended:
		if !strings.Contains(p.logged(), "the disk is full") {
			t.Errorf("a start says %q", p.logged())
		}
	case <-time.After(wire.Patience):
		t.Fatalf("the program neither listens nor ends; it says:\n%s", p.logged())
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	startProgram(t, path, serve("new")...).Member("bob")
	startProgram(t, path, serve("used")...).Dial().Ask("#login regd alice pw", "@status 0")
}
