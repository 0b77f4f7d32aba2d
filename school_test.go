package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"homeroom/test/wire"
)

// school is the one address that a whole school comes from.
const school = "10.1.2.3"

// piZero has a bubble's server hash as a Raspberry Pi Zero does: 250 ms each, one at a
// time.
func (b *bubble) piZero() {
	for _, h := range []*hasher{b.accounts.hasher, b.doors.hasher} {
		h.free, h.most = 1, hashQueue
	}
	b.accounts.hasher.run = func(hash func()) {
		time.Sleep(hashTime)
		hash()
	}
}

// defaultLimits has the limits be those of a server without settings.
func defaultLimits(c *config) { c.Limits = defaultConfig().Limits }

// pupils makes so many accounts, at school.
func (b *bubble) pupils(n int) (names []string) {
	b.t.Helper()
	host := b.dialFromGuest(school)
	for i := range n {
		names = append(names, fmt.Sprint("pupil", i))
		host.Ask("#createlogin "+names[i]+" sesame1 real mail", "@status 0")
	}
	return names
}

// goToSchool has 160 guests and the accounts come in from one address, the accounts all at
// the same moment, and expects that none is refused and that the last is in within 20 s.
func (b *bubble) goToSchool(names []string) (class []*wire.Client) {
	b.t.Helper()
	for i := range 160 {
		c := b.dialFrom(school)
		class = append(class, c)
		defer c.Ask(fmt.Sprint("#login anon guest", i), "@status 0")
	}
	var pupils []*wire.Client
	for range names {
		pupils = append(pupils, b.dialFrom(school))
	}
	began := time.Now()
	for i, c := range pupils {
		c.Send("#login regd " + names[i] + " sesame1")
	}
	for _, c := range pupils {
		c.Expect("@status 0")
	}
	if took := time.Since(began); took > 20*time.Second {
		b.t.Errorf("the last of %d is in after %v", len(names), took)
	}
	return append(class, pupils...)
}

// dials connects so many clients from an address.
func (b *bubble) dials(n int, from string) (clients []*wire.Client) {
	b.t.Helper()
	for range n {
		clients = append(clients, b.dialFrom(from))
	}
	return clients
}

// always has somebody send such lines again and again, on so many connections, one after
// the other's reply.
func (b *bubble) always(clients []*wire.Client, lines ...string) (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	for _, c := range clients {
		running.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				c.Send(lines[i%len(lines)])
				for line := c.Read(); !strings.HasPrefix(line, "@status "); line = c.Read() {
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	return func() {
		close(done)
		running.Wait()
	}
}

// TestSchoolGuesser: a hostile one among them guesses at accounts, at one most of all, and
// at names that nobody has. All the others get in as before; its guesses are few.
func TestSchoolGuesser(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b.piZero()
		names := b.pupils(40)
		stop := b.always(b.dials(4, school), "#login regd pupil0 x", "#login regd pupil1 x", "#login regd pupil0 x", "#login regd nobody x")
		b.pass(time.Minute)
		b.goToSchool(names)
		stop()
	}, defaultLimits)
}

// TestSchoolMaker: a hostile one among them makes accounts and rooms with passwords on 20
// connections, as fast as it can. All the others get in as before.
func TestSchoolMaker(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b.piZero()
		names := b.pupils(40)
		b.pass(time.Minute)
		_, before := b.users.count()
		var stops []func()
		for i := range 20 {
			var lines []string
			for j := range 100 {
				lines = append(lines, fmt.Sprint("#createlogin made", i, "x", j, " sesame1 real mail"), fmt.Sprint("#createroom made", i, "x", j, " sesame"))
			}
			stops = append(stops, b.always([]*wire.Client{b.dialFromGuest(school)}, lines...))
		}
		b.pass(time.Minute)
		if _, n := b.users.count(); n-before > 2*120 {
			t.Errorf("%d accounts were made in a minute", n-before)
		}
		b.goToSchool(names)
		for _, stop := range stops {
			stop()
		}
	}, defaultLimits)
}

// TestSchoolIdler: a hostile one among them has as many connections as it can that never log
// in. All the others get in as before.
func TestSchoolIdler(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b.piZero()
		names := b.pupils(40)
		b.dials(300, school)
		b.pass(3 * time.Second)
		b.goToSchool(names)
	}, defaultLimits)
}

// TestSchool: a school that is one address has 200 users in, of whom 40 log in at once.
func TestSchool(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b.piZero()
		for _, c := range b.goToSchool(b.pupils(40)) {
			c.Ask("#ping", "@ret #ping")
		}
	}, defaultLimits)
}
