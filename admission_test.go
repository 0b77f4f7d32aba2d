package main

import (
	"fmt"
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

// gaveWay is what a connection hears that has to give way.
const gaveWay = `@mess #warning "others are waiting to log in; the connection ends"`

// TestWaitingGiveWay: when all places of those that have not logged in are taken, the
// address with the most of them gives way, the longest first.
func TestWaitingGiveWay(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		const thief, alice = "192.0.2.1", "192.0.2.2"
		thieves := b.dials(4, thief)
		first := b.dialFrom(alice)
		thieves[0].Ended(gaveWay)
		thieves = append(thieves, b.dialFrom(thief)) // it has the most itself
		thieves[1].Ended(gaveWay)
		b.dialFrom(alice)
		thieves[2].Ended(gaveWay)
		first.Ask("#login anon alice", "@status 0")
		b.dialFrom(thief)
		thieves[3].Ask("#login anon thief", "@status 0")
		if synctest.Wait(); b.doorway.admission.asking != 3 {
			t.Errorf("%d have not logged in, want 3", b.doorway.admission.asking)
		}
	}, func(c *config) { c.Limits.Waiting = 4 })
}

// TestWaitingEverywhere: where each address has one place, the longest waiting gives way,
// so that many addresses that never log in do not keep others out.
func TestWaitingEverywhere(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		var thieves []*wire.Client
		for i := range 4 {
			thieves = append(thieves, b.dialFrom(fmt.Sprint("192.0.2.", i)))
			b.pass(time.Second)
		}
		alice := b.dialFrom("192.0.2.100")
		thieves[0].Ended(gaveWay)
		b.dialFrom("192.0.2.101")
		thieves[1].Ended(gaveWay)
		alice.Ask("#login anon alice", "@status 0")
	}, func(c *config) { c.Limits.Waiting = 4 })
}

// TestWaitingOfAnAddress: an address that has all its places gives way to itself.
func TestWaitingOfAnAddress(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		clients := b.dials(3, "192.0.2.1")
		clients[1].Ask("#login anon bob", "@status 0")
		b.dials(2, "192.0.2.1")
		clients[0].Ended(gaveWay)
		clients[2].Ask("#login anon alice", "@status 0")
	}, func(c *config) { c.Limits.WaitingPerIP = 3 })
}

// TestWaitingKept: half of the places are kept for addresses where somebody has lately
// logged in to an account, whose connections take others' places first.
func TestWaitingKept(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		const home = "10.0.1.1"
		b.makeAlice(home)
		b.pass(lingerTime)
		var thieves []*wire.Client
		come := func() {
			thieves = append(thieves, b.dialFrom(fmt.Sprint("192.0.2.", len(thieves))))
			b.pass(time.Second)
		}
		for range 4 {
			come()
		}
		mine := b.dials(2, home)
		thieves[0].Ended(gaveWay)
		thieves[1].Ended(gaveWay)
		for range 4 {
			come()
		}
		thieves[2].Ended(gaveWay)
		thieves[5].Ended(gaveWay)
		more := b.dials(2, home)
		come() // they have more than half
		mine[0].Ended(gaveWay)
		mine[1].Ask("#login anon bob", "@status 0")
		more[0].Ask("#login regd alice pw", "@status 0")
		b.pass(latelyTime + time.Hour)
		if b.doorway.admission.remembers(sourceOf(home)) {
			t.Error("the address is remembered for more than a week")
		}
	}, func(c *config) { c.Limits.Waiting, c.Limits.LoginGrace = 4, duration{} })
}

// TestCheckedDoesNotGiveWay: a connection whose password is being checked does not have to go;
// after a wrong one it is again the one that has waited longest.
func TestCheckedDoesNotGiveWay(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b.makeAlice("10.0.1.1")
		right, wrong := b.dialFrom("10.0.0.1"), b.dialFrom("10.0.0.1")
		b.pass(time.Second)
		release := b.accounts.hasher.hold()
		right.Send("#login regd alice pw")
		wrong.Send("#login regd alice x")
		synctest.Wait()
		idle := b.dials(3, "10.0.0.2")
		idle[0].Ended(gaveWay)
		release()
		right.Expect("@status 0")
		wrong.Expect("@status 3002")
		b.dials(2, "10.0.0.1")
		wrong.Ended(gaveWay)
	}, func(c *config) { c.Limits.Waiting, c.Limits.WaitingPerIP = 3, 2 })
}

// TestLocalAddresses: of a local network of IPv6 so many addresses in an hour count on
// their own, and those that are known to an account; all others as one.
func TestLocalAddresses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := config{}
		c.Limits.LocalAddresses = 3
		a := newAdmission(&c)
		a.remember(netip.MustParsePrefix("fe80::99/128"))
		want := func(from, want string) {
			t.Helper()
			mine := new(ticket)
			if refusal := a.admit(netip.MustParsePrefix(from), mine); refusal != "" || mine.share.key.String() != want || mine.share.crowd != (from != want) {
				t.Errorf("%s counts as %s (%s), want %s", from, mine.share.key, refusal, want)
			}
			a.leave(mine)
		}
		for _, net := range []struct{ local, all string }{{"fe80::", "fe80::/10"}, {"fd00::", "fd00::/64"}, {"2001:db8::", "2001:db8::/64"}} {
			for i := range 3 {
				want(fmt.Sprint(net.local, i+1, "/128"), fmt.Sprint(net.local, i+1, "/128"))
			}
			for i := range 2 * 300 {
				want(fmt.Sprintf("%s%x/128", net.local, i+0x100), net.all)
			}
			want(net.local+"1/128", net.local+"1/128")
		}
		want("fe80::99/128", "fe80::99/128")
		want("fe80:0:0:5::9/128", "fe80::/10")
		want("2001:db8:1::/64", "2001:db8:1::/64")
		want("::1/128", "::1/128")
		for i := range 10 {
			want(fmt.Sprint("10.0.0.", i, "/32"), fmt.Sprint("10.0.0.", i, "/32"))
		}
		time.Sleep(localTime + time.Second)
		want("fe80::77/128", "fe80::77/128")
		for i := range 2 * maxNetworks {
			mine := new(ticket)
			a.admit(netip.MustParsePrefix(fmt.Sprintf("fd00:0:%x::1/128", i+1)), mine)
			a.leave(mine)
		}
		if len(a.local) > maxNetworks || len(a.byIP) != 0 {
			t.Errorf("%d networks and %d addresses are remembered", len(a.local), len(a.byIP))
		}
		c.Limits.LocalAddresses = 0
		a.configure(&c)
		want("fe80::1234/128", "fe80::1234/128")
	})
}

// TestLatelyIsBounded: addresses where somebody logged in do not take much memory.
func TestLatelyIsBounded(t *testing.T) {
	t.Parallel()
	a, from := newAdmission(&config{}), netip.MustParseAddr("10.0.0.0")
	for range 2 * maxLately {
		from = from.Next()
		if a.remember(netip.PrefixFrom(from, 32)); len(a.lately) > maxLately {
			t.Fatalf("%d are remembered", len(a.lately))
		}
	}
	if !a.remembers(netip.PrefixFrom(from, 32)) {
		t.Error("the last one is forgotten")
	}
}
