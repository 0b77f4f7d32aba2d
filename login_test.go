package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"homeroom/store"
	"homeroom/test/wire"
)

// lateStore is a store that, while late is set, gives what it has read of an account
// only after a word from the test: by then it may be out of date.
type lateStore struct {
	store.Store
	late atomic.Bool
	now  chan struct{}
}

func (s *lateStore) Get(k store.Kind, id int64) (store.Record, error) {
	r, err := s.Store.Get(k, id)
	if s.late.CompareAndSwap(true, false) {
		<-s.now
	}
	return r, err
}

// lateReads has a bubble's server read accounts from a lateStore.
func (b *bubble) lateReads() *lateStore {
	synctest.Wait() // until nobody uses the store
	late := &lateStore{Store: b.store, now: make(chan struct{})}
	b.store = late
	return late
}

// TestResetBeatsChange: a #changepass under way when an administrator gives the account
// another password does not undo that.
func TestResetBeatsChange(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b.guest("bob").Ask("#createlogin alice pw real mail", "@status 0")
		late, thief, host := b.lateReads(), b.dial(), b.dialHost()
		thief.Ask("#login regd alice pw", "@status 0")
		late.late.Store(true)
		thief.Send("#changepass mine pw")
		synctest.Wait()
		host.Ask("#resetpass alice other", "@status 0")
		late.now <- struct{}{}
		synctest.Wait()
		c := b.dial()
		c.Ask("#login regd alice mine", "@status 3002")
		c.Ask("#login regd alice pw", "@status 3002")
		c.Ask("#login regd alice other", "@status 0")
	})
}

// TestChangesOfPasswordsInTurn: while one new password is being stored another waits,
// so that the one that is answered last is the one that holds.
func TestChangesOfPasswordsInTurn(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b.guest("bob").Ask("#createlogin alice pw real mail", "@status 0")
		alice, host := b.dial(), b.dialHost()
		alice.Ask("#login regd alice pw", "@status 0")
		release := b.users.changing.take() // somebody else's is being stored
		alice.Send("#changepass mine pw")
		synctest.Wait()
		host.Send("#resetpass alice other")
		synctest.Wait()
		if n := b.findAccount("alice").changes.Load(); n != 0 {
			t.Errorf("%d changes were made while another one was being stored", n)
		}
		release()
		alice.Expect("@status 0", `@mess #warning "your password was changed by Host"`)
		host.Expect("@status 0")
		b.dial().Ask("#login regd alice mine", "@status 3002")
		b.dial().Ask("#login regd alice other", "@status 0")
	})
}

// TestLoginWaitsPastReset: a login waits for the account's earlier session to end; when
// the password is changed meanwhile, or the account deleted, it is wrong after all.
func TestLoginWaitsPastReset(t *testing.T) {
	t.Parallel()
	for change, want := range map[string]string{"#resetpass alice other": "@status 3002", "#rmuser alice": "@status 3001"} {
		for how, login := range map[string]func(*wire.Client) string{
			"by password": func(c *wire.Client) string {
				c.Send("#login regd alice pw")
				return want
			},
			"by challenge": func(c *wire.Client) string {
				c.Send("#login regd alice " + c.Challenged("pw"))
				return want
			},
			"by SCRAM": func(c *wire.Client) string {
				talk := wire.ScramTalk(c.T, "alice", "pw")
				final, err := talk.Step(c.FirstStep(talk))
				if err != nil {
					c.T.Fatal(err)
				}
				c.Send("#auth " + final)
				return "@status 3002"
			},
		} {
			t.Run(change+" "+how, func(t *testing.T) {
				t.Parallel()
				inBubble(t, func(b *bubble) { b.loginWaits(change, login) }, withChallenge)
			})
		}
	}
}

// loginWaits keeps alice's earlier session at work, so that a login has to wait for
// its end, and has the operator change something then.
func (b *bubble) loginWaits(change string, login func(*wire.Client) string) {
	b.t.Helper()
	b.guest("bob").Ask("#createlogin alice pw real mail", "@status 0")
	first, second, host := b.dial(), b.guest("carol"), b.dialHost()
	first.Ask("#login regd alice pw", "@status 0")
	release := b.doors.hasher.hold()
	first.Send("#createroom den sesame") // its password waits for a core
	synctest.Wait()
	want := login(second)
	synctest.Wait()
	host.Ask(change, "@status 0")
	release()
	second.Expect(want)
	second.Ask("#whoami", "@ret #whoami carol Home 2 - 0") // a login that fails changes nothing
	if b.findOnline("alice") != nil {
		b.t.Error("somebody has the account's name")
	}
}

// TestResetAtTheLastMoment: the password is changed after a login has looked at it for
// the last time before it has its name. Nobody is there to be disconnected then, so the
// login has to see the change.
func TestResetAtTheLastMoment(t *testing.T) {
	t.Parallel()
	for change, want := range map[string]string{"#resetpass alice other": "@status 3002", "#rmuser alice": "@status 3001"} {
		t.Run(change, func(t *testing.T) {
			t.Parallel()
			ts := startServer(t)
			ts.Guest("bob").Ask("#createlogin alice pw real mail", "@status 0")
			host, c := ts.dialHost(), ts.Guest("carol")
			c.Ask("#createroom den", "@status 0")
			c.Ask("#changeroom den", "@status 0")
			c.Ask(`#creategroup news "" anon`, "@status 0")
			c.Ask("#joingroup news", "@status 0")
			s := ts.findOnline("carol")
			den := s.room()
			den.mu.Lock() // the login cannot leave the room; it has left the group by then
			c.Send("#login regd alice pw")
			wire.Until(t, "carol leaves the group", func() bool { return s.group() == nil })
			host.Ask(change, "@status 0")
			den.mu.Unlock()
			c.Expect(want)
			c.Ask("#whoami", "@status 3500")
			ts.Guest("carol")
		})
	}
}

// storedRounds is how many rounds the verifier of an account has, as stored.
func (srv *server) storedRounds(t testing.TB, name string) int {
	t.Helper()
	stored, err := srv.readAccount(srv.findAccount(name))
	if err != nil {
		t.Fatal(err)
	}
	return stored.verifier.rounds
}

// faster restarts a bubble's server with more rounds than alice's account has.
func (b *bubble) faster() *bubble {
	b.t.Helper()
	b.guest("bob").Ask(`#createlogin alice pw "Alice A" alice@example.org`, "@status 0")
	b.cfg.Auth.Iterations = 32
	return b.restart(time.Second)
}

// TestRenewal: a login whose verifier has too few rounds gets a new one, with the
// same password and all else as it was.
func TestRenewal(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"commit", "periodic"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(b *bubble) {
				b = b.faster()
				if got := b.storedRounds(t, "alice"); got != 16 {
					t.Fatalf("alice's verifier has %d rounds at first, want 16", got)
				}
				c := b.dial()
				c.Ask("#login regd alice wrong", "@status 3002")
				b.pass(time.Minute)
				if got := b.storedRounds(t, "alice"); got != 16 {
					t.Errorf("after a wrong password, alice's verifier has %d rounds, want 16", got)
				}
				c.Ask("#login regd alice pw", "@status 0")
				b.pass(time.Minute)
				b = b.restart(time.Second)
				stored, err := b.readAccount(b.findAccount("alice"))
				if err != nil {
					t.Fatal(err)
				}
				if stored.verifier.rounds != 32 || stored.realName != "Alice A" || stored.email != "alice@example.org" {
					t.Errorf("stored are %d rounds, %q, %q; want 32 rounds", stored.verifier.rounds, stored.realName, stored.email)
				}
				c = b.dial()
				c.Ask("#login regd alice wrong", "@status 3002")
				c.Ask("#login regd alice pw", "@status 0")
				b.pass(time.Minute)
				again, err := b.readAccount(b.findAccount("alice"))
				if err != nil || again.verifier.String() != stored.verifier.String() {
					t.Error("a verifier with enough rounds was made anew")
				}
			}, func(cfg *config) { cfg.Persist.Mode = mode })
		})
	}
}

// noSwap is a store that cannot renew a verifier.
type noSwap struct {
	store.Store
	tried chan store.Record
}

func (s noSwap) Swap(r store.Record, _ []byte) error {
	s.tried <- r
	return errors.New("the disk is on fire")
}

// TestRenewalFails: a verifier that cannot be stored does not keep anybody out.
func TestRenewalFails(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b = b.faster()
		broken := noSwap{b.store, make(chan store.Record, 2)}
		synctest.Wait() // until nobody uses the store
		b.store = broken
		for range 2 {
			c := b.dial()
			c.Ask("#login regd alice pw", "@status 0")
			<-broken.tried
			c.Ask("#whoami", "@ret #whoami alice Home 1 - 0")
			c.Ask("#quit", "@status 0")
		}
		if got := b.storedRounds(t, "alice"); got != 16 {
			t.Errorf("alice's verifier has %d rounds, want 16", got)
		}
	})
}

// TestRenewalComesLate: a password that was changed, and an account that was
// deleted, while a verifier was made anew stay so.
func TestRenewalComesLate(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b = b.faster()
		a := b.findAccount("alice")
		stored, err := b.readAccount(a)
		if err != nil {
			t.Fatal(err)
		}
		was, err := b.store.Get(store.Account, a.id)
		if err != nil {
			t.Fatal(err)
		}
		late := renewal{a, stored, "pw"}
		c := b.dial()
		c.Ask("#login regd alice pw", "@status 0")
		c.Ask("#changepass new pw", "@status 0")
		synctest.Wait()
		changed, err := b.store.Get(store.Account, a.id)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.renew(late), b.store.Swap(was, was.Body)); err != nil {
			t.Errorf("renewing too late: %v", err)
		}
		if now, err := b.store.Get(store.Account, a.id); err != nil || string(now.Body) != string(changed.Body) {
			t.Errorf("the changed password was overwritten (%v)", err)
		}
		c.Ask("#rmlogin", "@status 0")
		if err := b.store.Swap(was, changed.Body); err != nil {
			t.Errorf("renewing a deleted account: %v", err)
		}
		if _, err := b.store.Get(store.Account, a.id); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the deleted account is back: %v", err)
		}
	})
}

// TestRenewalsAreBounded: where too many wait, a login does not wait for a place.
func TestRenewalsAreBounded(t *testing.T) {
	t.Parallel()
	srv := &server{accounts: newPasswords(32, nil), users: newUsers()}
	srv.live.Store(&config{})
	for range maxRenewals + 5 {
		srv.renewLater(&account{}, &accountBody{verifier: &verifier{rounds: 16}}, "pw")
	}
	srv.renewLater(&account{}, &accountBody{verifier: &verifier{rounds: 32}}, "pw")
	if n := len(srv.users.renewals); n != maxRenewals {
		t.Errorf("%d wait, want %d", n, maxRenewals)
	}
}

// TestDecoyCostsTheSame: a password for an unknown name is held against as many
// rounds as new accounts have.
func TestDecoyCostsTheSame(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	srv.Member("alice")
	decoy := srv.accounts.madeUp("nobody")
	if got := srv.storedRounds(t, "alice"); decoy.rounds != got || len(decoy.salt) != saltBytes {
		t.Errorf("the decoy has %d rounds, a new account %d", decoy.rounds, got)
	}
}

// TestFailedLoginsAreLogged: one line an address and minute, with what was tried for a
// name that there is, and how many more there were. (It is not parallel: it looks at the
// log.)
func TestFailedLoginsAreLogged(t *testing.T) {
	log := captureLog(t)
	inBubble(t, func(b *bubble) {
		b.guest("bob").Ask("#createlogin alice pw real mail", "@status 0")
		thief, other, shown := b.dialFrom("10.0.0.66"), b.dialFrom("10.0.0.67"), 0
		want := func(lines ...string) {
			t.Helper()
			synctest.Wait()
			all := strings.SplitAfter(log.String(), "\n")
			var got []string
			for _, line := range all {
				if _, text, ok := strings.Cut(strings.TrimSpace(line), " msg="); ok && strings.Contains(text, "failed") {
					got = append(got, text)
				}
			}
			if got = got[shown:]; !slices.Equal(got, lines) {
				t.Errorf("logged:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
			}
			shown += len(got)
		}
		for range 3 {
			thief.Ask("#login regd alice sesame", "@status 3002")
		}
		other.Ask("#login regd sesame alice", "@status 3001")
		other.Ask("#login anon alice", "@status 3004") // no password was tried
		want(`"a login failed" address=10.0.0.66 account=alice status=3002`, `"a login failed" address=10.0.0.67 account=- status=3001`)
		b.pass(time.Minute)
		want(`"more logins failed" address=10.0.0.66/32 times=2`)
		talk := wire.ScramTalk(t, "alice", "sesame")
		final, err := talk.Step(other.FirstStep(talk))
		if err != nil {
			t.Fatal(err)
		}
		other.Ask("#auth "+final, "@status 3002")
		thief.Ask("#login regd alice sesame", "@status 3002")
		want(`"a login failed" address=10.0.0.67 account=alice status=3002`)
		b.stopNow()
		want(`"more logins failed" address=10.0.0.66/32 times=1`)
		if n := len(b.failures.since); n != 0 {
			t.Errorf("%d addresses are remembered", n)
		}
	})
}

// makeAlice makes an account for a guest at an address, which is known to it from then on.
func (b *bubble) makeAlice(from string) {
	b.t.Helper()
	c := b.dialFromGuest(from)
	c.Ask("#createlogin alice pw real mail", "@status 0")
	c.Ask("#quit", "@status 0")
}

// TestAccountGuessed: guesses at one account from many addresses are slowed down together.
// The address that is known to it is not, and whoever knows the password gets in from
// elsewhere in its turn.
func TestAccountGuessed(t *testing.T) {
	t.Parallel()
	for login, right := range map[string]string{"#login regd alice wrong": "#login regd alice pw", "#login regd ALICE wrong": "#login regd Alice pw"} {
		inBubble(t, func(b *bubble) {
			const home, away = "10.0.1.1", "10.0.1.2"
			b.makeAlice(home)
			for i := range 20 {
				b.dialFrom(fmt.Sprint("10.0.0.", i)).Ask(login, "@status 3002")
			}
			began := time.Now()
			thieves := b.dials(2, "10.0.0.100")
			thieves[0].Send(login)
			synctest.Wait()
			thieves[1].Ask(login, "@status 3006") // its address waits already
			for i := range 8 {
				b.dialFrom(fmt.Sprint("10.0.0.", i)).Send(login)
			}
			synctest.Wait()
			c := b.dialFrom(away)
			c.Send(right)
			synctest.Wait()
			b.dialFrom("10.0.0.99").Ask(login, "@status 3006") // that would be more than 30 s
			b.dialFrom(home).Ask("#login regd alice pw", "@status 0")
			if took := time.Since(began); took > 0 {
				t.Errorf("the known address waited %v", took)
			}
			thieves[0].Expect("@status 3002")
			if took := time.Since(began).Round(time.Second); took != 3*time.Second {
				t.Errorf("the first thief waited %v, want 3s", took)
			}
			c.Expect("@status 0")
			if took := time.Since(began).Round(time.Second); took != 30*time.Second {
				t.Errorf("alice waited %v at another address, want 30s", took)
			}
			b.dialFrom(away).Ask(right, "@status 0") // it is known now
			b.pass(2 * time.Minute)
			b.dialFrom("10.0.0.98").Ask(login, "@status 3002")
		})
	}
}

// TestNobodyGuessed: a name that nobody has is slowed down just so.
func TestNobodyGuessed(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		auth := func(c *wire.Client) (took time.Duration) {
			began, talk := time.Now(), wire.ScramTalk(t, "nobody", "wrong")
			final, err := talk.Step(c.FirstStep(talk))
			if err != nil {
				t.Fatal(err)
			}
			c.Ask("#auth "+final, "@status 3002")
			return time.Since(began).Round(time.Second)
		}
		for i := range 20 {
			if took := auth(b.dialFrom(fmt.Sprint("10.0.0.", i))); took != 0 {
				t.Fatalf("try %d took %v", i, took)
			}
		}
		if took := auth(b.dialFrom("10.0.0.99")); took != 3*time.Second {
			t.Errorf("the next try took %v, want 3s", took)
		}
	})
}

// TestKnownAddress: at an address that is known to an account, guesses at others do not
// count against it, and its own do not count against them.
func TestKnownAddress(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		const home = "10.0.1.1"
		b.makeAlice(home)
		guess := b.dialFrom(home)
		for range 20 {
			guess.Ask("#login regd alice wrong", "@status 3002")
		}
		for range 20 {
			guess.Ask("#login regd nobody wrong", "@status 3001")
		}
		guess.Ask("#login regd nobody wrong", "@status 3006")
		began := time.Now()
		alice := b.dialFrom(home)
		alice.Ask("#login regd alice pw", "@status 0")
		if took := time.Since(began).Round(time.Second); took != 3*time.Second {
			t.Errorf("alice waited %v for her turn, want 3s", took)
		}
		guess.Ask("#login regd alice wrong", "@status 3002")
		alice.Ask("#changepass other wrong", "@status 3006") // it does not wait
		b.pass(time.Minute)
		alice.Ask("#changepass other wrong", "@status 3002")
		alice.Ask("#changepass other pw", "@status 0")
	})
}

// TestGuessesPerAccountOff: without the limit nobody waits, and a known address is counted
// like every other.
func TestGuessesPerAccountOff(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		const home = "10.0.1.1"
		b.makeAlice(home)
		began, guess := time.Now(), b.dialFrom(home)
		for i := range 40 {
			b.dialFrom(fmt.Sprint("10.0.0.", i)).Ask("#login regd alice wrong", "@status 3002")
		}
		for range 20 {
			guess.Ask("#login regd alice wrong", "@status 3002")
		}
		guess.Ask("#login regd alice pw", "@status 3006")
		if took := time.Since(began); took != 0 {
			t.Errorf("somebody waited %v", took)
		}
	}, func(c *config) { c.Limits.GuessesPerAccount = 0 })
}

// TestStopWhileWaiting: a server that stops does not wait for those who wait for a turn.
func TestStopWhileWaiting(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		for i := range 30 {
			b.dialFrom(fmt.Sprint("10.0.0.", i)).Send("#login regd alice wrong")
		}
		synctest.Wait()
		began := time.Now()
		b.stopNow()
		if took := time.Since(began); took > stopTime+lingerTime {
			t.Errorf("the stop took %v", took)
		}
	})
}
