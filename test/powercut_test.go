package test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"homeroom/test/disk"
)

// TestPowerCut cuts the power of a server that is storing what several clients
// ask for. Everything that was answered @status 0 is there afterwards, and nothing
// else.
func TestPowerCut(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	power := disk.NewPower(t)
	data := filepath.Join(power.Folder, "new", "data")
	c := newCrashTest(t, buildProgram(t), programSettings, data, false)
	for _, w := range c.workers {
		w.lateLost = true // see cutPower
	}
	c.cut = func(p *program) {
		cutUnder(power, p)
		wantChecked(t, data)
	}
	for range *powercuts {
		if c.round(); t.Failed() {
			return
		}
	}
	c.finish("power cuts", *powercuts)
	wantChecked(t, data)
}

// TestPowerCutFirstStart: where the power fails while a server makes its key,
// certificate and database, the next start works, and what is stored then stays.
func TestPowerCutFirstStart(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	power, path := disk.NewPower(t), buildProgram(t)
	settings := writeSettings(t, programSettings+"[tls]\nlisten = \"127.0.0.1:0\"\n")
	began := time.Now()
	startProgram(t, path, "-config", settings, "-data", filepath.Join(power.Folder, "whole")).kill()
	whole := time.Since(began)
	for round := range *powercuts {
		data := filepath.Join(power.Folder, fmt.Sprint(round), "data")
		args := []string{"-config", settings, "-data", data}
		for range 1 + rand.IntN(3) {
			p := launch(t, path, args...)
			p.waitSome(whole)
			cutUnder(power, p)
			wantChecked(t, data)
		}
		p := startProgram(t, path, args...)
		p.Member("alice")
		cutUnder(power, p)
		p = startProgram(t, path, args...)
		c := p.Dial()
		c.Ask("#login regd alice pw", "@status 0")
		c.Conn.Close() // a stop waits for those who stay
		if code := p.terminate(); code != exitDone {
			t.Errorf("round %d: exit code %d", round, code)
		}
		if wantChecked(t, data); t.Failed() {
			return
		}
		if err := os.RemoveAll(data); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPowerCutBackup: where the power fails during a backup of a busy server,
// there is the backup from before, or the new one, whole.
func TestPowerCutBackup(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	power, path := disk.NewPower(t), buildProgram(t)
	data, file := filepath.Join(power.Folder, "data"), filepath.Join(power.Folder, "backup.db")
	args := []string{"-config", writeSettings(t, programSettings), "-data", data}
	p := startProgram(t, path, args...)
	c := p.Member("alice")
	c.Ask(`#creategroup talk "" anon 0`, "@status 0")
	c.Ask("#joingroup talk", "@status 0")
	for range 200 {
		c.Ask("#postmessage heading\r\ntext", "@status 0")
	}
	posted, least, done := new(atomic.Int64), 200, 0
	posted.Store(200)
	backup := func() *program { return launch(t, path, "backup", "-data", data, file) }
	began := time.Now()
	if b := backup(); b.exitCode() != exitDone {
		t.Fatalf("the first backup: %s", b.logged())
	}
	whole := time.Since(began)
	key, err := os.ReadFile(filepath.Join(data, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	for round := range *powercuts {
		ended := p.postOn(posted)
		before := int(posted.Load())
		b := backup()
		b.waitSome(whole * 3 / 2)
		select {
		case <-b.ended:
			least = before
			done++
		default:
		}
		acknowledged := posted.Load()
		power.Cut()
		b.kill()
		p.kill()
		<-ended
		power.On()
		wantChecked(t, data)
		stored := int64(askDatabase(t, data, "SELECT count(*) FROM messages"))
		if stored < acknowledged {
			t.Errorf("%d messages are stored, %d were acknowledged", stored, acknowledged)
		}
		posted.Store(stored)
		if least = wantRestores(t, file, key, least); t.Failed() {
			t.Fatalf("round %d", round)
		}
		p = startProgram(t, path, args...)
	}
	t.Logf("%d power cuts, %d of them after the backup was there; %d messages in the last one", *powercuts, done, least)
}

// postOn posts, and counts what is acknowledged, until the server is gone; the
// channel is closed then.
func (p *program) postOn(posted *atomic.Int64) (ended chan struct{}) {
	c := p.Guest("bob")
	c.Ask("#joingroup talk", "@status 0")
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := c.Conn.Write([]byte("#postmessage heading\r\ntext\r\n")); err != nil {
				return
			}
			got, err := c.ReadErr()
			if err != nil {
				return
			}
			if got == "@status 0" {
				posted.Add(1)
			}
		}
	}()
	return ended
}

// cutUnder cuts the power under a running program.
func cutUnder(d *disk.Power, p *program) {
	d.Cut()
	p.kill()
	d.On()
}

// waitSome waits any part of a time, or for a program's end.
func (p *program) waitSome(whole time.Duration) {
	select {
	case <-p.ended:
	case <-time.After(rand.N(whole)): // any moment will do
	}
}

// powercuts is how often each of the tests here cuts the power:
// go test -run TestPowerCut -timeout 0 ./test -powercuts=200.
var powercuts = flag.Int("powercuts", 3, "how often each test of power cuts cuts the power")

// wantRestores expects that a server starts with what a backup holds, which is so
// many messages at least, and returns how many.
func wantRestores(t *testing.T, file string, key []byte, least int) (messages int) {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, keyFile), key, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, said, why := run(t, "restore", "-data", folder, file); code != exitDone || strings.Contains(said, "not start") {
		t.Fatalf("restoring: exit code %d; it says %s%s", code, said, why)
	}
	wantChecked(t, folder)
	p := startOn(t, folder)
	group := p.Guest("reader").Listed("#listgroups", "talk")
	stored := askDatabase(t, folder, "SELECT count(*) FROM messages")
	if len(group) < 4 || group[3] != strconv.Itoa(stored) || stored < least {
		t.Errorf("the group is %q, %d messages are stored (at least %d before)", group, stored, least)
	}
	p.Dial().Ask("#login regd alice pw", "@status 0")
	p.kill()
	return stored
}
