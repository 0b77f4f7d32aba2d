package main

import (
	"fmt"
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

// pupils makes so many accounts, as the operator.
func (b *bubble) pupils(n int) (names []string) {
	b.t.Helper()
	host := b.dialHost()
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
