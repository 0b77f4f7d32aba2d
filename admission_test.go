package main

import (
	"bufio"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"homeroom/test/wire"
)

// TestSource: what counts as one address, by where the connection comes from and
// which of the server's addresses it goes to.
func TestSource(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ from, to, want string }{
		{"192.168.1.20", "192.168.1.1", "192.168.1.20/32"},
		{"203.0.113.9", "192.168.1.1", "203.0.113.9/32"},
		{"2001:db8:0:1::20", "2001:db8:0:9::1", "2001:db8:0:1::/64"},
		{"2001:db8:0:1::20", "2001:db8:0:1::1", "2001:db8:0:1::20/128"}, // the server's own network
		{"2001:db8:0:1::20", "192.168.1.1", "2001:db8:0:1::/64"},
		{"fd00::20", "fd00::1", "fd00::20/128"},
		{"fd00:0:0:1::20", "fd00::1", "fd00:0:0:1::20/128"},
		{"fe80::20", "fe80::1", "fe80::20/128"},
	} {
		if got := source(netip.MustParseAddr(c.from), netip.MustParseAddr(c.to)); got.String() != c.want {
			t.Errorf("from %s to %s counts as %s, want %s", c.from, c.to, got, c.want)
		}
	}
	if got := source(netip.Addr{}, netip.Addr{}); got.IsValid() {
		t.Errorf("no address counts as %s", got)
	}
}

// TestComingAgain: who connects again and again has no more commands than all the
// connections that an address may have at a time.
func TestComingAgain(t *testing.T) {
	inBubble(t, func(b *bubble) {
		ask := func(want ...string) {
			t.Helper()
			c := b.dial()
			for _, w := range want {
				c.Ask("#ping", w)
			}
			c.Conn.Close()
			synctest.Wait()
		}
		remembered := func() int {
			b.doorway.admission.mu.Lock()
			defer b.doorway.admission.mu.Unlock()
			return len(b.doorway.admission.byIP)
		}
		for range 3 { // 6 commands: 2 connections with 3 at once
			ask("@ret #ping", "@ret #ping")
		}
		ask("@status 3505", "@status 3505", "@status 3505", "@status 3505") // and no end: it is not this one that floods
		b.pass(time.Second)                                                 // 2 connections with 1 a second
		ask("@ret #ping", "@ret #ping", "@status 3505")
		if n := remembered(); n != 1 {
			t.Errorf("%d addresses are remembered, want the one that has spent much", n)
		}
		b.pass(3 * time.Second)
		if n := remembered(); n != 0 {
			t.Errorf("%d addresses are remembered when nothing is spent any more", n)
		}
		ask("@ret #ping", "@ret #ping", "@ret #ping", "@status 3505") // the connection's own
	}, func(c *config) {
		c.Limits.CommandsPerSecond, c.Limits.CommandBurst, c.Limits.ConnectionsPerIP = 1, 3, 2
	})
}

// TestComingAgainUnlimited: with no limit on the connections of an address there is
// none on its commands.
func TestComingAgainUnlimited(t *testing.T) {
	inBubble(t, func(b *bubble) {
		for range 20 {
			c := b.dial()
			c.Ask("#ping", "@ret #ping")
			c.Conn.Close()
		}
	}, func(c *config) {
		c.Limits.CommandsPerSecond, c.Limits.CommandBurst, c.Limits.ConnectionsPerIP = 1, 1, 0
	})
}

// TestWaitingGiveWay: an address that has taken all the places of those who have not
// logged in gives way to others, up to the same share, the longest first.
func TestWaitingGiveWay(t *testing.T) {
	inBubble(t, func(b *bubble) {
		const thief, alice = "192.0.2.1", "192.0.2.2"
		var thieves []*wire.Client
		for range 4 {
			thieves = append(thieves, b.dialFrom(thief))
		}
		first := b.dialFrom(alice)
		thieves[0].Ended(`@mess #warning "others are waiting to log in; the connection ends"`)
		b.refused(thief)
		b.dialFrom(alice)
		thieves[1].Ended(`@mess #warning "others are waiting to log in; the connection ends"`)
		b.refused(alice) // each has two
		first.Ask("#login anon alice", "@status 0")
		b.dialFrom(thief)
		b.refused(thief)
		thieves[2].Ask("#login anon thief", "@status 0")
		if synctest.Wait(); b.doorway.admission.asking != 3 {
			t.Errorf("%d have not logged in, want 3", b.doorway.admission.asking)
		}
	}, func(c *config) { c.Limits.Waiting = 4 })
}

// refused connects from an address, and expects that it may not wait to log in.
func (b *bubble) refused(address string) {
	b.t.Helper()
	conn, servers := net.Pipe()
	defer conn.Close()
	go b.serve(fromElsewhere{servers, net.ParseIP(address)}) // a pipe takes nothing before it is read
	line, err := bufio.NewReader(conn).ReadString('\n')
	if want := "@mess #warning \"too many connections are waiting to log in; try again later\"\r\n"; line != want {
		b.t.Fatalf("%s got %q, %v, want %q", address, line, err, want)
	}
}
