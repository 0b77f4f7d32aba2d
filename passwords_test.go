package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// handClock is guesses with a clock that the test moves by hand.
type handClock struct {
	*guesses
	t   *testing.T
	now time.Time
}

func newHandClock(t *testing.T, perMinute int) *handClock {
	h := &handClock{guesses: newGuesses(perMinute), t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	h.clock = func() time.Time { return h.now }
	return h
}

// sourceOf is the source of an address that comes from the internet.
func sourceOf(from string) netip.Prefix { return source(netip.MustParseAddr(from), netip.Addr{}) }

// tries makes so many wrong tries from an address and returns how many of them
// were let through.
func (h *handClock) tries(n int, from string) (let int) {
	a := sourceOf(from)
	for range n {
		if h.allow(a) == nil {
			h.wrong(a)
			let++
		}
	}
	return let
}

// wantWait expects that an address is refused up to the end of a wait, and not
// after it. (It looks without trying: a try would make the wait longer.)
func (h *handClock) wantWait(from string, want time.Duration) {
	h.t.Helper()
	c := h.byIP[sourceOf(from)]
	if got := c.until.Sub(h.now); got != want {
		h.t.Fatalf("%s has to wait %v, want %v", from, got, want)
	}
}

const thief = "203.0.113.9"

// TestGuessesPerMinute is an address that guesses at the speed that it may.
func TestGuessesPerMinute(t *testing.T) {
	t.Parallel()
	h := newHandClock(t, 20)
	for range 1000 {
		if h.tries(1, thief) != 1 {
			t.Fatal("one guess in 3 s is refused, 20 in a minute are allowed")
		}
		h.now = h.now.Add(3 * time.Second)
	}
	if let := h.tries(100, "203.0.113.10"); let != 20 {
		t.Errorf("%d guesses at once were let through, want 20", let)
	}
}

// TestGuesserWaitsLonger tries while it has to wait: each try doubles the wait, up
// to an hour.
func TestGuesserWaitsLonger(t *testing.T) {
	t.Parallel()
	h := newHandClock(t, 20)
	if let := h.tries(20, thief); let != 20 {
		t.Fatalf("%d guesses were let through, want 20", let)
	}
	h.wantWait(thief, 3*time.Second)
	for want := 6 * time.Second; want < longestWait; want *= 2 {
		h.now = h.now.Add(2 * time.Second)
		if h.tries(1, thief) != 0 {
			t.Fatal("a try during the wait was let through")
		}
		h.wantWait(thief, want)
	}
	for range 3 {
		h.tries(10, thief)
		h.wantWait(thief, longestWait)
	}
	h.now = h.now.Add(longestWait - 1)
	if h.tries(1, thief) != 0 {
		t.Error("let through before the end of the wait")
	}
	h.now = h.now.Add(longestWait)
	if h.tries(1, thief) != 1 {
		t.Error("refused after the end of the wait")
	}
}

// TestPatientGuesser never tries while it has to wait; its waits double all the
// same, whenever its guesses are used up.
func TestPatientGuesser(t *testing.T) {
	t.Parallel()
	h := newHandClock(t, 20)
	start, let := h.now, 0
	for h.now.Sub(start) < 24*time.Hour {
		for h.now.Before(start) || h.byIP[sourceOf(thief)] == nil ||
			!h.now.Before(h.byIP[sourceOf(thief)].until) {
			let += h.tries(1, thief)
		}
		h.now = h.byIP[sourceOf(thief)].until
	}
	if let > 700 {
		t.Errorf("%d guesses in a day were let through, want 700 at the most", let)
	}
}

// TestWaitsAreForgotten: after an hour of quiet the first wait is short again.
func TestWaitsAreForgotten(t *testing.T) {
	t.Parallel()
	h := newHandClock(t, 20)
	h.tries(23, thief)
	h.wantWait(thief, 24*time.Second)
	h.now = h.now.Add(24*time.Second + longestWait - 1)
	h.tries(20, thief)
	h.wantWait(thief, 48*time.Second)
	h.now = h.now.Add(48*time.Second + longestWait)
	h.tries(20, thief)
	h.wantWait(thief, 3*time.Second)
}

// TestGuessesUnderWay: passwords that were being checked when the wait began do not make
// it longer.
func TestGuessesUnderWay(t *testing.T) {
	t.Parallel()
	h := newHandClock(t, 20)
	h.tries(20, thief)
	for range 10 {
		h.wrong(sourceOf(thief))
	}
	h.wantWait(thief, 3*time.Second)
}

// TestGuessersApart: an IPv6 /64 of the internet is one address, others are not
// touched.
func TestGuessersApart(t *testing.T) {
	t.Parallel()
	h := newHandClock(t, 3)
	for i := range 3 {
		h.tries(1, fmt.Sprintf("2001:db8::%x", i+1))
		h.tries(1, fmt.Sprintf("fd00::%x", i+1))
	}
	for from, want := range map[string]int{
		"2001:db8::ffff:0:0:1": 0, "2001:db8:0:1::1": 1, "fd00::1": 1, "fd00::9": 1, thief: 1,
	} {
		if let := h.tries(1, from); let != want {
			t.Errorf("%d guesses from %s were let through, want %d", let, from, want)
		}
	}
	if err := h.allow(netip.Prefix{}); err != nil {
		t.Errorf("no address at all: %v", err)
	}
}

// TestGuessersAreBounded: many addresses do not take much memory, and cannot make
// the server forget an address that has to wait for long.
func TestGuessersAreBounded(t *testing.T) {
	t.Parallel()
	h := newHandClock(t, 3)
	h.tries(8, thief)
	a := netip.MustParseAddr("10.0.0.0")
	for i := range maxGuessers * 3 / 2 {
		a = a.Next()
		h.tries(1+i%4, a.String())
		if len(h.byIP) > maxGuessers {
			t.Fatalf("%d addresses are remembered", len(h.byIP))
		}
	}
	if h.tries(1, thief) != 0 {
		t.Error("who has to wait was forgotten")
	}
	h.now = h.now.Add(24 * time.Hour)
	for range maxGuessers {
		a = a.Next()
		h.tries(1, a.String())
	}
	if h.tries(1, thief) != 1 {
		t.Error("the wait does not end")
	}
}

// TestGuessesUnlimited is the limit switched off.
func TestGuessesUnlimited(t *testing.T) {
	t.Parallel()
	h := newHandClock(t, 0)
	if let := h.tries(100, thief); let != 100 || len(h.byIP) != 0 {
		t.Errorf("%d of 100 guesses were let through, %d addresses are remembered", let, len(h.byIP))
	}
}

// hold takes all cores, so that every password to be hashed waits until they are
// released. No password is being hashed.
func (h *hasher) hold() (release func()) {
	cores := h.free
	for range cores {
		h.begin(hashPlace{})
	}
	return func() {
		for range cores {
			h.end()
		}
	}
}

// TestHashersTurns: while one core hashes, four may wait. An address that has them
// all gives way to others, up to the same share, and they are served by turns.
func TestHashersTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, busy := newHasher(), make(chan struct{})
		h.most, h.free = 4, 1
		var served, refused []string
		come := func(from string) {
			go func() {
				address := netip.MustParsePrefix(from)
				if err := h.do(hashPlace{payer{from: address}, lastRank}, func() { served = append(served, from) }); isStatus(err, statusThrottled) {
					refused = append(refused, from) // not at the same time as another: the test waits
				} else if err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		go func() { _ = h.do(hashPlace{}, func() { <-busy }) }()
		synctest.Wait()
		const thief, alice, bob = "192.0.2.1/32", "192.0.2.2/32", "2001:db8::/64"
		for _, from := range []string{thief, thief, thief, thief, thief, alice, alice, alice, bob} {
			come(from)
		}
		// The fifth of the thief finds no room; alice takes two of its places; her third finds
		// none, since she has as many; bob takes the last of hers, which came after the thief's.
		if want := []string{thief, thief, thief, alice, alice}; !slices.Equal(refused, want) {
			t.Errorf("refused: %s, want %s", strings.Join(refused, " "), strings.Join(want, " "))
		}
		close(busy)
		synctest.Wait()
		if want := []string{thief, alice, thief, bob}; !slices.Equal(served, want) {
			t.Errorf("served: %s, want %s", strings.Join(served, " "), strings.Join(want, " "))
		}
		if h.free != 1 || len(h.queue) != 0 {
			t.Errorf("%d cores are free and %d wait, want 1 and 0", h.free, len(h.queue))
		}
	})
}

// TestPasswordsThatAreNotUTF8: all bytes that are not UTF-8 look the same to the server,
// so a password with one is none: it cannot be set, and is never right.
func TestPasswordsThatAreNotUTF8(t *testing.T) {
	t.Parallel()
	ts := startServer(t, withChallenge)
	alice, boss := ts.Member("alice"), ts.admin("boss")
	for _, bad := range []string{"p\xe4ssw\xf6rd", "p\xe5ssw\xf8rd", "\xff\xff", "pw\xc3", "\ufffd", "\"p w\xed\xa0\x80\""} {
		alice.Ask("#changepass "+bad+" pw", "@status 3504")
		alice.Ask("#changepass new "+bad, "@status 3002")
		alice.Ask("#login regd alice "+bad, "@status 3002")
		alice.Ask("#createlogin carol "+bad+" r m", "@status 3504")
		alice.Ask("#login regd carol "+bad, "@status 3001")
		alice.Ask("#createroom den "+bad, "@status 3504")
		alice.Ask("#creategroup talk "+bad, "@status 3504")
		boss.Ask("#resetpass alice "+bad, "@status 3504")
		boss.Ask("#adduser carol "+bad+" r m", "@status 3504")
	}
	alice.Ask("#createroom den pw", "@status 0")
	alice.Ask("#creategroup talk pw", "@status 0")
	alice.Ask("#changeroom den pw", "@status 0")
	alice.Ask("#roompass p\xe4ss", "@status 3504")
	boss.Ask("#changeroom den pw", "@status 0")
	for _, bad := range []string{"p\xe4ss", "\ufffd"} {
		boss.Ask("#changeroom Home", "@status 0")
		boss.Ask("#changeroom den "+bad, "@status 3101")
		boss.Ask("#joingroup talk "+bad, "@status 3201")
	}
}

// TestPasswordsSetBefore: a password with U+FFFD in it that an earlier version has set
// is never right, whatever it is compared with.
func TestPasswordsSetBefore(t *testing.T) {
	t.Parallel()
	ts := startServer(t, withChallenge)
	alice := ts.Member("alice")
	v, err := makeVerifier("p\ufffdss", []byte("salt"), 1)
	if err != nil {
		t.Fatal(err)
	}
	a := ts.findAccount("alice")
	if err := ts.store.Replace(bodyRecord(a.id, &accountBody{verifier: v, recoverable: "p\ufffdss"})); err != nil {
		t.Fatal(err)
	}
	alice.Ask("#login regd alice p\xe4ss", "@status 3002")
	alice.Ask("#login regd alice p\ufffdss", "@status 3002")
	alice.Ask("#login regd alice "+alice.Challenged("p\ufffdss"), "@status 3002")
}

// TestPacesAreBounded: guesses at many accounts do not take much memory, and do not free
// one that is being guessed at.
func TestPacesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		p.perMinute = 20
		guess := func(name string) error {
			turn, err := p.begin(try{name: name, hurry: true})
			if err == nil {
				p.end(turn, false)
			}
			return err
		}
		for range 20 {
			if err := guess("alice"); err != nil {
				t.Fatal(err)
			}
		}
		for i := range maxGuessers * 2 {
			if err := guess(fmt.Sprint("user", i)); err != nil {
				t.Fatal(err)
			}
			if len(p.byKey) > maxGuessers {
				t.Fatalf("%d accounts are remembered", len(p.byKey))
			}
		}
		if err := guess("alice"); !isStatus(err, statusThrottled) {
			t.Errorf("the next guess at alice: %v, want 3006", err)
		}
		time.Sleep(time.Minute)
		for range 20 {
			if err := guess("alice"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestKnownPlacesAreBounded: the last addresses are known.
func TestKnownPlacesAreBounded(t *testing.T) {
	t.Parallel()
	var k knownPlaces
	k.note(netip.Prefix{})
	for i := range 100 {
		k.note(sourceOf(fmt.Sprint("10.0.0.", i)))
		k.note(sourceOf("10.0.1.1"))
	}
	for from, want := range map[string]bool{"10.0.1.1": true, "10.0.0.99": true, "10.0.0.85": true, "10.0.0.84": false} {
		if k.has(sourceOf(from)) != want {
			t.Errorf("%s is known: %v", from, !want)
		}
	}
	if len(k.from) != maxPlaces || k.has(netip.Prefix{}) {
		t.Errorf("known: %v", k.from)
	}
}

// TestHashersRanks: known accounts go first, then addresses where others have logged in; and
// one turn in four is of the worst rank. A newcomer takes the place of a worse rank.
func TestHashersRanks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, busy := newHasher(), make(chan struct{})
		h.most, h.free = 8, 1
		var served, refused []string
		come := func(who string, r rank) {
			go func() {
				if h.do(hashPlace{payer{account: who}, r}, func() { served = append(served, who) }) != nil {
					refused = append(refused, who) // not at the same time as another: the test waits
				}
			}()
			synctest.Wait()
		}
		go func() { _ = h.do(hashPlace{}, func() { <-busy }) }()
		synctest.Wait()
		for range 7 {
			come("maker", lastRank)
		}
		come("other", lastRank)
		for _, who := range []string{"ann", "bob", "carl", "dora"} {
			come(who, firstRank)
		}
		come("pupil", secondRank)
		come("late", lastRank) // the maker has two waiting
		if want := []string{"maker", "maker", "maker", "maker", "maker", "maker"}; !slices.Equal(refused, want) {
			t.Errorf("refused: %s, want %s", strings.Join(refused, " "), strings.Join(want, " "))
		}
		close(busy)
		synctest.Wait()
		if want := []string{"ann", "bob", "carl", "maker", "dora", "pupil", "other", "late"}; !slices.Equal(served, want) {
			t.Errorf("served: %s, want %s", strings.Join(served, " "), strings.Join(want, " "))
		}
	})
}

// TestHashBudget: whoever has no account shares a budget with the others at the address;
// accounts, other addresses and the operator do not.
func TestHashBudget(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		const here, there = "10.0.0.1", "10.0.0.2"
		host, c := b.dialHost(), b.dialFromGuest(here)
		for i := range 4 {
			c.Ask(fmt.Sprint("#createlogin ann", i, " sesame1 real mail"), "@status 0")
		}
		for range 2 {
			c.Ask("#createlogin bob sesame1 real mail", "@status 3006")
		}
		b.dialFromGuest(here).Ask("#createlogin bob sesame1 real mail", "@status 3006")
		ann := b.dialFrom(here)
		ann.Ask("#login regd ann0 sesame1", "@status 0") // a login costs nothing
		ann.Ask("#changepass sesame2 sesame1", "@status 0")
		ann.Ask("#changepass sesame1 sesame2", "@status 0")
		ann.Ask("#changepass sesame2 sesame1", "@status 3006")
		b.dialFromGuest(there).Ask("#createlogin bob sesame1 real mail", "@status 0")
		b.pass(15 * time.Second)
		c.Ask("#createlogin carl sesame1 real mail", "@status 0")
		c.Ask("#createlogin dora sesame1 real mail", "@status 3006")
		for i := range 9 {
			host.Ask(fmt.Sprint("#createlogin eve", i, " sesame1 real mail"), "@status 0")
		}
		// Rooms and groups have a budget of their own.
		c.Ask("#createroom den sesame", "@status 0")
		c.Ask(`#creategroup news sesame anon`, "@status 0")
		c.Ask("#changeroom den sesame", "@status 0")
		c.Ask("#joingroup news sesame", "@status 0")
		c.Ask("#changeroom Home", "@status 0")
		c.Ask("#changeroom den sesame", "@status 3006")
		c.Ask("#createroom cave sesame", "@status 3006")
		c.Ask("#createroom hall", "@status 0")
		ann.Ask("#changeroom den sesame", "@status 0")
	}, func(c *config) { c.Limits.HashesPerMinute = 4 })
}

// TestHashBudgetOff: with 0 there is none.
func TestHashBudgetOff(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		c := b.dialFromGuest("10.0.0.1")
		for i := range 150 {
			c.Ask(fmt.Sprint("#createlogin ann", i, " sesame1 real mail"), "@status 0")
		}
	}, func(c *config) { c.Limits.HashesPerMinute = 0 })
}

// TestHashBudgetsAreBounded: many addresses do not take much memory.
func TestHashBudgetsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newHashBudget()
		b.perMinute = 2
		spend := func(who string) error { return b.spend(payer{account: who}, 1) }
		for range 2 {
			if err := spend("maker"); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 2 * maxGuessers {
			if err := spend(fmt.Sprint("user", i)); err != nil {
				t.Fatal(err)
			}
			if len(b.spent) > maxGuessers {
				t.Fatalf("%d are remembered", len(b.spent))
			}
		}
		if err := spend("maker"); !isStatus(err, statusThrottled) {
			t.Errorf("the maker's third: %v, want 3006", err)
		}
	})
}
