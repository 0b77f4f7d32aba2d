package main

import (
	"cmp"
	"math"
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

// guesses counts the wrong passwords of each address, as a token bucket: an address
// may make so many a minute. One that has used them up waits, each time twice as long
// as before, and a try during the wait counts too. Accounts and rooms are never
// locked, so nobody can lock out another.
type guesses struct {
	mu        sync.Mutex
	perMinute float64 // 0: no limit
	byIP      map[netip.Prefix]*guessCount
	clock     func() time.Time
}

// guessCount is how many guesses an address has used up, less those that the time
// since has given back, and how long it has to wait.
type guessCount struct {
	used  float64
	at    time.Time     // when used was brought up to the present
	wait  time.Duration // the last one; 0: none so far
	until time.Time     // its end
}

// newGuesses allows each address so many wrong guesses a minute; 0: any number.
func newGuesses(perMinute int) *guesses {
	return &guesses{perMinute: float64(perMinute), byIP: map[netip.Prefix]*guessCount{}, clock: time.Now}
}

// allow fails with 3006 while an address has to wait, and makes it wait longer for
// having tried.
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

// judge counts a password if it is wrong, which is 3002.
func (g *guesses) judge(from netip.Prefix, right bool) error {
	if right {
		return nil
	}
	g.wrong(from)
	return fail(statusWrongPassword)
}

// wrong counts a wrong password. Those that were being checked when the wait began do
// not make it longer.
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

// bringUp gives a count back what the time since has earned. g.mu is held.
func (g *guesses) bringUp(c *guessCount, now time.Time) {
	c.used = max(0, c.used-g.perMinute*now.Sub(c.at).Minutes())
	c.at = now
	if now.Sub(c.until) >= longestWait {
		c.wait = 0
	}
}

// prolong makes an address wait from now on, twice as long as the last time. The
// first wait is as long as it takes to get a guess back. g.mu is held.
func (g *guesses) prolong(c *guessCount, now time.Time) {
	first := max(shortestWait, time.Duration(float64(time.Minute)/g.perMinute))
	c.wait = min(max(first, 2*c.wait), longestWait)
	c.until = now.Add(c.wait)
}

// forget makes room: quiet addresses go first, then a tenth of the others, those with
// the shortest wait. g.mu is held.
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

// longestTurn is the longest that a try waits for its turn. The next ones are refused.
const longestTurn = 30 * time.Second

// pace slows down the tries at one account whose wrong passwords have used up a token
// bucket: then each waits for its turn, as fast as the bucket fills. So whoever knows the
// password gets in while others guess, however many there are: an account is never locked.
// An address has one turn at a time, or where it is known to the account, each session.
type pace struct {
	mu        sync.Mutex
	perMinute float64 // 0: no limit
	byKey     map[paceKey]*paced
}

// paceKey is an account and one of the addresses that are known to it; or with no valid
// one, all others.
type paceKey struct {
	name string
	from netip.Prefix
}

// paced is a bucket of an account.
type paced struct {
	used    float64 // up to now, with the tries that are under way
	at      time.Time
	waiting map[any]bool // for a turn: addresses, or sessions
}

// paceTurn is a try's place; end gives it back.
type paceTurn struct {
	key  paceKey
	by   any
	wait time.Duration
}

func newPace() *pace { return &pace{byKey: map[paceKey]*paced{}} }

// limited reports whether there is a limit.
func (p *pace) limited() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.perMinute > 0
}

// begin gives a try its turn. It fails with 3006 where whoever tries waits for one
// already, or would wait for too long.
func (p *pace) begin(t try) (*paceTurn, error) {
	turn := &paceTurn{key: paceKey{name: t.name}, by: t.from}
	if t.known {
		turn.key.from, turn.by = t.from, t.by
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.perMinute == 0 {
		return turn, nil
	}
	c := p.bucket(turn.key)
	turn.wait = time.Duration((c.used + 1 - p.perMinute) / p.perMinute * float64(time.Minute))
	if turn.wait > 0 && (t.hurry || c.waiting[turn.by] || turn.wait > longestTurn) {
		return nil, fail(statusThrottled)
	}
	c.used++
	if turn.wait > 0 {
		if c.waiting == nil {
			c.waiting = map[any]bool{}
		}
		c.waiting[turn.by] = true
	}
	return turn, nil
}

// end frees a turn. Only that of a wrong password stays used.
func (p *pace) end(turn *paceTurn, unused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.byKey[turn.key]
	if c == nil {
		return
	}
	if p.bringUp(c); unused {
		c.used = max(0, c.used-1)
	}
	if turn.wait > 0 {
		delete(c.waiting, turn.by)
	}
}

// bucket finds or makes one, as it is now. p.mu is held.
func (p *pace) bucket(key paceKey) *paced {
	c := p.byKey[key]
	if c == nil {
		if len(p.byKey) >= maxGuessers {
			p.forget()
		}
		c = &paced{at: time.Now()}
		p.byKey[key] = c
	}
	p.bringUp(c)
	return c
}

// bringUp gives a bucket back what the time since has earned. p.mu is held.
func (p *pace) bringUp(c *paced) {
	now := time.Now()
	c.used = max(0, c.used-p.perMinute*now.Sub(c.at).Minutes())
	c.at = now
}

// forget makes room: buckets that nobody waits at go, those that are not used up first.
// p.mu is held.
func (p *pace) forget() {
	for _, most := range []float64{0, p.perMinute / 2, math.Inf(1)} {
		for key, c := range p.byKey {
			if p.bringUp(c); c.used <= most && len(c.waiting) == 0 {
				delete(p.byKey, key)
			}
		}
		if len(p.byKey) <= maxGuessers*9/10 {
			return
		}
	}
}

// knownPlaces is where somebody has logged in to an account lately.
type knownPlaces struct {
	mu   sync.Mutex
	from []netip.Prefix // the last one first
}

// maxPlaces is how many addresses are known to an account.
const maxPlaces = 16

// note makes an address known.
func (k *knownPlaces) note(from netip.Prefix) {
	if !from.IsValid() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if i := slices.Index(k.from, from); i >= 0 {
		k.from = slices.Delete(k.from, i, i+1)
	}
	k.from = slices.Insert(k.from, 0, from)
	k.from = k.from[:min(len(k.from), maxPlaces)]
}

// has reports whether an address is known.
func (k *knownPlaces) has(from netip.Prefix) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Contains(k.from, from)
}

// hashBudget is a token bucket for each of those who have passwords hashed that prove
// nothing: who makes accounts, or tries rooms, without end would keep a small machine busy
// with that alone.
type hashBudget struct {
	mu        sync.Mutex
	perMinute float64 // 0: no limit
	spent     map[payer]*spending
}

// spending is what is used up of a bucket.
type spending struct {
	used float64
	at   time.Time
}

func newHashBudget() *hashBudget { return &hashBudget{spent: map[payer]*spending{}} }

// spend pays for so many hashes, or fails with 3006. The operator pays nothing.
func (b *hashBudget) spend(who payer, n float64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.perMinute == 0 || who == (payer{}) {
		return nil
	}
	c := b.spent[who]
	if c == nil {
		if len(b.spent) >= maxGuessers {
			b.forget()
		}
		c = &spending{at: time.Now()}
		b.spent[who] = c
	}
	if b.bringUp(c); c.used > 0 && c.used+n > b.perMinute {
		return fail(statusThrottled)
	}
	c.used += n
	return nil
}

// bringUp gives a bucket back what the time since has earned. b.mu is held.
func (b *hashBudget) bringUp(c *spending) {
	now := time.Now()
	c.used = max(0, c.used-b.perMinute*now.Sub(c.at).Minutes())
	c.at = now
}

// forget makes room: full buckets go first, then those that are least used. b.mu is held.
func (b *hashBudget) forget() {
	for _, most := range []float64{0, b.perMinute / 2, math.Inf(1)} {
		for who, c := range b.spent {
			if b.bringUp(c); c.used <= most {
				delete(b.spent, who)
			}
		}
		if len(b.spent) <= maxGuessers*9/10 {
			return
		}
	}
}
