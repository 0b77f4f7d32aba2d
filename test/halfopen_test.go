package test

import (
	"crypto/tls"
	"os/exec"
	"slices"
	"testing"
	"time"

	"homeroom/test/wire"
)

// goneTime is how soon the server knows that somebody is gone whose cable was
// cut, as promised.
const goneTime = 25 * time.Second

// TestHalfOpen: people whose cable is cut are found out although not a byte says
// so: idle ones, with TLS or without, and one to whom the server is sending. Their
// names are free then.
func TestHalfOpen(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	cable, data := newCable(t), t.TempDir()
	const plainAddr, tlsAddr = "10.99.0.1:6500", "10.99.0.1:6501"
	settings := writeSettings(t, programSettings+"[tls]\nlisten = \""+tlsAddr+"\"\n")
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Fatal(err)
	}
	startProgram(t, ip, "netns", "exec", cable.server, buildProgram(t), "-config", settings, "-data", data, "-listen", plainAddr)
	guest := func(from, name, room string) *wire.Client {
		c := wire.Greeted(t, cable.dial(from, plainAddr))
		c.Ask("#login anon "+name, "@status 0")
		c.Ask("#changeroom "+room, "@status 0")
		return c
	}
	watcher := guest(cable.server, "watcher", "Home")
	watcher.Ask("#createroom den", "@status 0")
	talker := guest(cable.server, "talker", "den")
	guest(cable.clients, "idle", "Home")
	guest(cable.clients, "busy", "den")
	config := wire.TLS(t, data)
	config.ServerName = "10.99.0.1"
	sealed := wire.Greeted(t, tls.Client(cable.dial(cable.clients, tlsAddr), config))
	sealed.Ask("#login anon sealed", "@status 0")
	watcher.Ask("#events on", "@status 0")
	talker.Ask("#events on", "@status 0")
	cable.cut()
	cut := time.Now()
	talker.Ask("#broadcast hello", `@mess #broadcast talker "hello"`, "@status 0")
	left := []string{afterCut(watcher, cut), afterCut(watcher, cut)}
	slices.Sort(left)
	if want := []string{"@mess #left Home idle", "@mess #left Home sealed"}; !slices.Equal(left, want) {
		t.Errorf("got %q, want %q", left, want)
	}
	if got, want := afterCut(talker, cut), "@mess #left den busy"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, name := range []string{"idle", "busy", "sealed"} {
		guest(cable.server, name, "Home")
	}
}

// afterCut reads a line that the kernel's timers bring, and logs when it came.
func afterCut(c *wire.Client, since time.Time) string {
	c.T.Helper()
	if err := c.Conn.SetReadDeadline(since.Add(goneTime + wire.Patience)); err != nil {
		c.T.Fatal(err)
	}
	line, err := c.In.ReadString('\n')
	if err != nil {
		c.T.Fatalf("%v after the cut: %v (got %q)", time.Since(since), err, line)
	}
	c.T.Logf("%v after the cut: %s", time.Since(since).Round(10*time.Millisecond), line)
	return line[:len(line)-2]
}
