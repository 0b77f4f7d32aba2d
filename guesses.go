package main

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	maxGuessers  = 10_000      // addresses that are remembered
	shortestWait = time.Second // the first wait of an address whose guesses are used up, at least
	longestWait  = time.Hour   // the longest; also the quiet time after which waits are forgotten
)

// guesses counts wrong passwords per address: each address may make so many a
// minute. One that has used them up waits, each time twice as long as before;
// trying while it has to wait counts too. Accounts and rooms are never locked, so
// nobody can lock out another.
type guesses struct {
	mu        sync.Mutex
	perMinute float64 // 0: no limit
	byIP      map[netip.Prefix]*guessCount
	clock     func() time.Time
}

// guessCount is the guesses that an address has used up, less what the time
// since has given back, and how long it has to wait.
type guessCount struct {
	used  float64
	at    time.Time     // when used was brought up to the present
	wait  time.Duration // the last one; 0: none so far
	until time.Time     // its end
}

func newGuesses(perMinute int) *guesses {
	return &guesses{perMinute: float64(perMinute), byIP: map[netip.Prefix]*guessCount{}, clock: time.Now}
}

// bringUp gives a count back what the time since has earned. g.mu is held.
func (g *guesses) bringUp(c *guessCount, now time.Time) {
	c.used = max(0, c.used-g.perMinute*now.Sub(c.at).Minutes())
	c.at = now
	if now.Sub(c.until) >= longestWait {
		c.wait = 0
	}
}

// prolong makes an address wait from now on, twice as long as the last time. The
// first wait is what it takes to get a guess back. g.mu is held.
func (g *guesses) prolong(c *guessCount, now time.Time) {
	first := max(shortestWait, time.Duration(float64(time.Minute)/g.perMinute))
	c.wait = min(max(first, 2*c.wait), longestWait)
	c.until = now.Add(c.wait)
}

// allow fails with 3006 when an address has guessed too often, and makes it wait
// longer for having tried.
func (g *guesses) allow(from netip.Prefix) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.perMinute == 0 {
		return nil
	}
	c, now := g.byIP[from], g.clock()
	if c == nil || !now.Before(c.until) {
		return nil
	}
	g.bringUp(c, now)
	g.prolong(c, now)
	return fail(statusThrottled)
}

// wrong counts a wrong password. Those that were being checked when the wait
// began do not make it longer.
func (g *guesses) wrong(from netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.perMinute == 0 {
		return
	}
	now := g.clock()
	c := g.byIP[from]
	if c == nil {
		if len(g.byIP) >= maxGuessers {
			g.forget(now)
		}
		c = &guessCount{at: now}
		g.byIP[from] = c
	}
	g.bringUp(c, now)
	c.used++
	if c.used > g.perMinute-1 && !now.Before(c.until) {
		g.prolong(c, now)
	}
}

// check holds what was typed at an address against a verifier, if the address may still
// guess: 3002, or 3006.
func (g *guesses) check(from netip.Prefix, h *hasher, v *verifier, typed string) error {
	if err := g.allow(from); err != nil {
		return err
	}
	err := h.check(from, v, typed)
	if isStatus(err, statusWrongPassword) {
		g.wrong(from)
	}
	return err
}

// forget makes room: addresses that are quiet go first, then a tenth of the
// others, those with the shortest wait. g.mu is held.
func (g *guesses) forget(now time.Time) {
	keys := make([]netip.Prefix, 0, len(g.byIP))
	for key, c := range g.byIP {
		if g.bringUp(c, now); c.used == 0 && c.wait == 0 {
			delete(g.byIP, key)
		} else {
			keys = append(keys, key)
		}
	}
	if len(g.byIP) <= maxGuessers*9/10 {
		return
	}
	slices.SortFunc(keys, func(a, b netip.Prefix) int {
		x, y := g.byIP[a], g.byIP[b]
		return cmp.Or(cmp.Compare(x.wait, y.wait), cmp.Compare(x.used, y.used))
	})
	for _, key := range keys[:len(g.byIP)-maxGuessers*9/10] {
		delete(g.byIP, key)
	}
}
