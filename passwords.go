package main

import (
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
	budget  *hashBudget
	hasher  *hasher
	closed  chan struct{} // nobody waits any more
}

// newPasswords makes a desk; secret is needed for madeUp only.
func newPasswords(rounds int, secret []byte) *passwords {
	return &passwords{
		rounds: rounds, secret: secret, noKey: randomBytes(32), guesses: newGuesses(0),
		pace: newPace(), budget: newHashBudget(), hasher: newHasher(), closed: make(chan struct{}),
	}
}

// check compares what was typed at an address with a verifier, at the cost of whoever
// typed it. It fails with 3002
// where that is wrong, and with 3006 where the address has guessed too often or too
// many passwords wait to be hashed.
func (p *passwords) check(from netip.Prefix, at hashPlace, v *verifier, typed string) error {
	if err := p.guesses.allow(from); err != nil {
		return err
	}
	if err := p.budget.spend(at.payer, 1); err != nil {
		return err
	}
	right, err := p.matches(at, v, typed)
	if err != nil {
		return err
	}
	return p.guesses.judge(from, right)
}

// matches hashes what was typed: 3006 where too many wait.
func (p *passwords) matches(at hashPlace, v *verifier, typed string) (right bool, err error) {
	password, err := preparePassword(typed)
	if err != nil {
		password = "" // no password is empty, but the time is spent all the same
	}
	err = p.hasher.do(at, func() { right = v.matches(password) })
	return right, err
}

// try is somebody's try at the password of an account.
type try struct {
	name  string       // the account's key; nobody may have it
	from  netip.Prefix // where
	known bool         // somebody has logged in to the account from there
	by    any
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

// make hashes a prepared password when its turn has come: 3006 where too many wait.
func (p *passwords) make(at hashPlace, password string) (v *verifier, err error) {
	if busy := p.hasher.do(at, func() { v, err = newVerifier(password, p.rounds) }); busy != nil {
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
	p.budget.mu.Lock()
	p.budget.perMinute = float64(l.HashesPerMinute)
	p.budget.mu.Unlock()
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

// hashQueue is how many may wait to have a password hashed, for each core: a class whose
// users all log in at the same moment, at a school that is one address.
const hashQueue = 64

// hasher lets a few passwords be hashed at a time, at most one for each core with a
// core left over where there are several. A few more wait and the rest are refused, so
// that logins never take the machine away from the chat. Those of a better rank go first,
// and accounts and addresses take turns, so that none of them can have it for itself.
type hasher struct {
	most int               // that wait
	run  func(hash func()) // hashes; a test has it take longer

	mu     sync.Mutex
	closed bool        // nobody waits any more
	free   int         // cores
	queue  []*hashTurn // the oldest first
	served payer       // whose turn was the last one
	ranked int         // turns by rank since one by age
}

// rank is who goes first, as loginPlace says.
type rank int

const (
	firstRank rank = iota
	secondRank
	lastRank
)

// payer is whom a hash counts against: an account, an address, or an account as far as it
// is used from an address. With neither it is the machine's operator.
type payer struct {
	from    netip.Prefix
	account string
}

// hashPlace is where a hash stands in the queue.
type hashPlace struct {
	payer payer
	rank  rank
}

// hashTurn is a wait.
type hashTurn struct {
	hashPlace
	come chan error // gets nil when it is its turn, or 3006
}

// newHasher leaves one core to the chat, if there is more than one.
func newHasher() *hasher {
	cores := max(1, min(runtime.NumCPU(), runtime.GOMAXPROCS(0))-1)
	return &hasher{most: cores * hashQueue, run: func(hash func()) { hash() }, free: cores}
}

// do runs hash when a core is free. It fails with 3006 when too many wait.
func (h *hasher) do(at hashPlace, hash func()) error {
	if turn := h.begin(at); turn != nil {
		if err := <-turn.come; err != nil {
			return err
		}
	}
	defer h.end()
	h.run(hash)
	return nil
}

// begin takes a core, or a place in the queue: then it returns the turn to wait for.
func (h *hasher) begin(at hashPlace) *hashTurn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.free > 0 {
		h.free--
		return nil
	}
	turn := &hashTurn{hashPlace: at, come: make(chan error, 1)}
	if h.closed || len(h.queue) >= h.most && !h.makeRoom(at) {
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

// makeRoom sends away somebody for a newcomer: the last turn of the worst rank if that is
// worse than the newcomer's; else, of its own rank, the last one of whoever has the most
// waiting, if that is more than the newcomer will have. h.mu is held.
func (h *hasher) makeRoom(at hashPlace) bool {
	waiting := map[payer]int{}
	for _, turn := range h.queue {
		waiting[turn.payer]++
	}
	victim := -1
	for i, turn := range h.queue {
		if turn.rank < at.rank {
			continue
		}
		if victim < 0 || turn.rank > h.queue[victim].rank ||
			turn.rank == h.queue[victim].rank && waiting[turn.payer] >= waiting[h.queue[victim].payer] {
			victim = i
		}
	}
	if victim < 0 || h.queue[victim].rank == at.rank && waiting[h.queue[victim].payer] <= waiting[at.payer]+1 {
		return false
	}
	h.queue[victim].come <- fail(statusThrottled)
	h.queue = slices.Delete(h.queue, victim, victim+1)
	return true
}

// end gives a core to the next turn.
func (h *hasher) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) == 0 {
		h.free++
		return
	}
	next := h.next()
	turn := h.queue[next]
	h.queue = slices.Delete(h.queue, next, next+1)
	h.served = turn.payer
	turn.come <- nil
}

// rankedTurns is how many turns go by rank before one goes to whoever has waited longest
// of the worst rank: a school that logs in does not keep out everybody else.
const rankedTurns = 3

// next finds the turn that has waited longest of the best rank, of somebody else than the
// last one served if there is any. h.mu is held.
func (h *hasher) next() int {
	best, worst := lastRank, firstRank
	for _, turn := range h.queue {
		best, worst = min(best, turn.rank), max(worst, turn.rank)
	}
	if h.ranked++; h.ranked > rankedTurns {
		best, h.ranked = worst, 0
	}
	of := func(other bool) int {
		return slices.IndexFunc(h.queue, func(turn *hashTurn) bool { return turn.rank == best && (!other || turn.payer != h.served) })
	}
	if i := of(true); i >= 0 {
		return i
	}
	return of(false)
}
