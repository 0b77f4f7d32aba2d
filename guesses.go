package main

import (
	"net/netip"
	"sync"
	"time"
)

// maxGuessers bounds how many addresses are remembered.
const maxGuessers = 10_000

// guesses counts wrong passwords per address: each address may make so many a
// minute. Accounts are never locked, so nobody can lock out another.
type guesses struct {
	perMinute float64 // 0: no limit

	mu    sync.Mutex
	byIP  map[netip.Prefix]*guessCount
	clock func() time.Time
}

// guessCount is the guesses that an address has used up, less what the time
// since has given back.
type guessCount struct {
	used float64
	at   time.Time
}

func newGuesses(perMinute int) *guesses {
	return &guesses{perMinute: float64(perMinute), byIP: map[netip.Prefix]*guessCount{}, clock: time.Now}
}

// now brings a count up to the present. g.mu is held.
func (g *guesses) now(c *guessCount) float64 {
	t := g.clock()
	c.used = max(0, c.used-g.perMinute*t.Sub(c.at).Minutes())
	c.at = t
	return c.used
}

// allow fails with 3006 when an address has guessed too often.
func (g *guesses) allow(from netip.Addr) error {
	if g.perMinute == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.byIP[source(from)]; c != nil && g.now(c) > g.perMinute-1 {
		return fail(statusThrottled)
	}
	return nil
}

// wrong counts a wrong password.
func (g *guesses) wrong(from netip.Addr) {
	if g.perMinute == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.byIP[source(from)]
	if c == nil {
		if len(g.byIP) >= maxGuessers {
			g.forget()
		}
		c = &guessCount{at: g.clock()}
		g.byIP[source(from)] = c
	}
	c.used = g.now(c) + 1
}

// forget makes room: addresses whose guesses have all come back go first, then
// any. g.mu is held.
func (g *guesses) forget() {
	for key, c := range g.byIP {
		if g.now(c) == 0 {
			delete(g.byIP, key)
		}
	}
	for key := range g.byIP {
		if len(g.byIP) < maxGuessers {
			return
		}
		delete(g.byIP, key)
	}
}
