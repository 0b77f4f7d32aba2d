package main

import (
	"cmp"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
)

const (
	maxPassword = 100                    // bytes of a password, after preparation
	minRounds   = 15_000                 // what calibration goes down to on a slow machine
	doorRounds  = 4096                   // of the passwords of rooms and groups (RFC 7677 section 4)
	hashTime    = 250 * time.Millisecond // what one check of an account's password is to cost
	secretBytes = 32                     // of the secret that made-up salts come from
)

// passwords is a desk at which passwords are checked and verifiers made: each address
// has so many wrong guesses, and a few passwords are hashed at a time. The server has
// two, one for accounts and one for the doors of rooms and groups, so that an address
// that has used up its guesses at one may still go to the other, and a rush of logins
// does not hold up the doors.
type passwords struct {
	// fixed when it is made
	rounds int    // of the verifiers that it makes
	secret []byte // where the salts of names that nobody has come from
	noKey  []byte // fits no password

	guesses *guesses
	pace    *pace
	hasher  *hasher
	closed  chan struct{} // nobody waits any more
}

// newPasswords makes a desk; secret is needed for madeUp only.
func newPasswords(rounds int, secret []byte) *passwords {
	return &passwords{
		rounds: rounds, secret: secret, noKey: randomBytes(32), guesses: newGuesses(0),
		pace: newPace(), hasher: newHasher(), closed: make(chan struct{}),
	}
}

// check compares what was typed at an address with a verifier. It fails with 3002
// where that is wrong, and with 3006 where the address has guessed too often or too
// many passwords wait to be hashed.
func (p *passwords) check(from netip.Prefix, v *verifier, typed string) error {
	if err := p.guesses.allow(from); err != nil {
		return err
	}
	right, err := p.matches(from, v, typed)
	if err != nil {
		return err
	}
	return p.guesses.judge(from, right)
}

// matches hashes what was typed at an address: 3006 where too many wait.
func (p *passwords) matches(from netip.Prefix, v *verifier, typed string) (right bool, err error) {
	password, err := preparePassword(typed)
	if err != nil {
		password = "" // no password is empty, but the time is spent all the same
	}
	err = p.hasher.do(from, func() { right = v.matches(password) })
	return right, err
}

// try is somebody's try at the password of an account.
type try struct {
	name  string       // the account's key; nobody may have it
	from  netip.Prefix // where
	known bool         // somebody has logged in to the account from there
	by    *session
	hurry bool // it does not wait for its turn
}

// login has a try judged by what proves it, which is a hash or costs next to nothing. It
// fails as check does. The guesses of the address count only where nobody has logged in to
// the account from it: else one hostile user of a school that is one address would keep
// everybody else there out.
func (p *passwords) login(t try, proves func() (bool, error)) error {
	known := t.known && p.pace.limited()
	if err := p.mayTry(t); err != nil {
		return err
	}
	turn, err := p.pace.begin(t)
	if err != nil {
		return err
	}
	if err := p.await(turn); err != nil {
		p.pace.end(turn, true)
		return err
	}
	right, err := proves()
	p.pace.end(turn, right || err != nil)
	switch {
	case err != nil:
		return err
	case known && !right:
		return fail(statusWrongPassword)
	}
	return p.guesses.judge(t.from, right)
}

// mayTry fails with 3006 while the address of a try has to wait.
func (p *passwords) mayTry(t try) error {
	if t.known && p.pace.limited() {
		return nil
	}
	return p.guesses.allow(t.from)
}

// await sleeps until a try's turn, or fails with 3006 when the server stops.
func (p *passwords) await(turn *paceTurn) error {
	if turn.wait <= 0 {
		return nil
	}
	timer := time.NewTimer(turn.wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-p.closed:
		return fail(statusThrottled)
	}
}

// close sends away whoever waits: the server stops.
func (p *passwords) close() {
	close(p.closed)
	p.hasher.close()
}

// make hashes a prepared password when the address's turn has come: 3006 where too
// many wait.
func (p *passwords) make(from netip.Prefix, password string) (v *verifier, err error) {
	if busy := p.hasher.do(from, func() { v, err = newVerifier(password, p.rounds) }); busy != nil {
		return nil, busy
	}
	return v, err
}

// madeUp is the verifier of a name that nobody has: no password fits it, and its salt
// is always the same for the same name, as a real one's is.
func (p *passwords) madeUp(user string) *verifier {
	key := user
	if n, err := userName(user); err == nil {
		key = n.key
	}
	return &verifier{
		salt: hmacSHA256(p.secret, "salt of "+key)[:saltBytes], rounds: p.rounds,
		storedKey: p.noKey, serverKey: p.noKey,
	}
}

// configure takes over limits.
func (p *passwords) configure(l *limits) {
	p.guesses.mu.Lock()
	p.guesses.perMinute = float64(l.LoginsPerMinute)
	p.guesses.mu.Unlock()
	p.pace.mu.Lock()
	p.pace.perMinute = float64(l.GuessesPerAccount)
	p.pace.mu.Unlock()
}

// preparePassword is PRECIS OpaqueString (RFC 8265 section 4.2), 1 to 100 bytes. Bytes
// that are not UTF-8 have all become U+FFFD, which would make one password of many.
func preparePassword(word string) (string, error) {
	if strings.ContainsRune(word, utf8.RuneError) {
		return "", fail(statusBadArgs)
	}
	prepared := word
	if !isASCII(word, ' ') {
		var err error
		if prepared, err = precis.OpaqueString.String(word); err != nil {
			return "", fail(statusBadArgs)
		}
	}
	if prepared == "" || len(prepared) > maxPassword {
		return "", fail(statusBadArgs)
	}
	return prepared, nil
}

// calibrateRounds finds how many rounds take hashTime on this machine.
func calibrateRounds() int {
	const sample = 20_000
	best := time.Duration(1<<63 - 1)
	for range 3 {
		start := time.Now()
		if _, err := makeVerifier("calibration", make([]byte, saltBytes), sample); err != nil {
			return maxRounds
		}
		best = min(best, time.Since(start))
	}
	rounds := int(sample * float64(hashTime) / float64(max(best, 1)))
	return min(max(rounds, minRounds), maxRounds)
}

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

// hashQueue is how many may wait to have a password hashed, for each core: a class whose
// users all log in at the same moment, at a school that is one address.
const hashQueue = 64

// hasher lets a few passwords be hashed at a time, at most one for each core with a
// core left over where there are several. A few more wait and the rest are refused, so
// that logins never take the machine away from the chat. The waiting addresses take
// turns, so that none of them can have it for itself.
type hasher struct {
	most int               // that wait
	run  func(hash func()) // hashes; a test has it take longer

	mu     sync.Mutex
	closed bool         // nobody waits any more
	free   int          // cores
	queue  []*hashTurn  // the oldest first
	served netip.Prefix // whose turn was the last one
}

// hashTurn is a wait, at some address.
type hashTurn struct {
	from netip.Prefix
	come chan error // gets nil when it is its turn, or 3006
}

// newHasher leaves one core to the chat, if there is more than one.
func newHasher() *hasher {
	cores := max(1, min(runtime.NumCPU(), runtime.GOMAXPROCS(0))-1)
	return &hasher{most: cores * hashQueue, run: func(hash func()) { hash() }, free: cores}
}

// do runs hash when a core is free. It fails with 3006 when too many wait.
func (h *hasher) do(from netip.Prefix, hash func()) error {
	if turn := h.begin(from); turn != nil {
		if err := <-turn.come; err != nil {
			return err
		}
	}
	defer h.end()
	h.run(hash)
	return nil
}

// begin takes a core, or a place in the queue: then it returns the turn to wait for.
func (h *hasher) begin(from netip.Prefix) *hashTurn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.free > 0 {
		h.free--
		return nil
	}
	turn := &hashTurn{from: from, come: make(chan error, 1)}
	if h.closed || len(h.queue) >= h.most && !h.makeRoom(from) {
		turn.come <- fail(statusThrottled)
		return turn
	}
	h.queue = append(h.queue, turn)
	return turn
}

// close sends away whoever waits: the server stops.
func (h *hasher) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, turn := range h.queue {
		turn.come <- fail(statusThrottled)
	}
	h.queue = nil
}

// makeRoom sends away the last turn of the address that has the most waiting, if that
// has more than from will have. h.mu is held.
func (h *hasher) makeRoom(from netip.Prefix) bool {
	waiting := map[netip.Prefix]int{}
	for _, turn := range h.queue {
		waiting[turn.from]++
	}
	last := -1
	for i, turn := range h.queue {
		if last < 0 || waiting[turn.from] >= waiting[h.queue[last].from] {
			last = i
		}
	}
	if last < 0 || waiting[h.queue[last].from] <= waiting[from]+1 {
		return false
	}
	h.queue[last].come <- fail(statusThrottled)
	h.queue = slices.Delete(h.queue, last, last+1)
	return true
}

// end gives a core to the turn that has waited longest, of another address than the
// last one served if there is any.
func (h *hasher) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) == 0 {
		h.free++
		return
	}
	next := max(0, slices.IndexFunc(h.queue, func(turn *hashTurn) bool { return turn.from != h.served }))
	turn := h.queue[next]
	h.queue = slices.Delete(h.queue, next, next+1)
	h.served = turn.from
	turn.come <- nil
}
