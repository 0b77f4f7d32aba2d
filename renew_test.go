package main

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

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
	b.guest("bob").ask(`#createlogin alice pw "Alice A" alice@example.org`, "@status 0")
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
				c.ask("#login regd alice wrong", "@status 3002")
				b.pass(time.Minute)
				if got := b.storedRounds(t, "alice"); got != 16 {
					t.Errorf("after a wrong password, alice's verifier has %d rounds, want 16", got)
				}
				c.ask("#login regd alice pw", "@status 0")
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
				c.ask("#login regd alice wrong", "@status 3002")
				c.ask("#login regd alice pw", "@status 0")
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
	store
	tried chan record
}

func (s noSwap) swap(r record, _ []byte) error {
	s.tried <- r
	return errors.New("the disk is on fire")
}

// TestRenewalFails: a verifier that cannot be stored does not keep anybody out.
func TestRenewalFails(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b = b.faster()
		broken := noSwap{b.store, make(chan record, 2)}
		synctest.Wait() // until nobody uses the store
		b.store = broken
		for range 2 {
			c := b.dial()
			c.ask("#login regd alice pw", "@status 0")
			<-broken.tried
			c.ask("#whoami", "@ret #whoami alice Home 1 - 0")
			c.ask("#quit", "@status 0")
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
		was, err := b.store.get(kindAccount, a.id)
		if err != nil {
			t.Fatal(err)
		}
		late := renewal{a, stored, "pw"}
		c := b.dial()
		c.ask("#login regd alice pw", "@status 0")
		c.ask("#changepass new pw", "@status 0")
		synctest.Wait()
		changed, err := b.store.get(kindAccount, a.id)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.renew(late), b.store.swap(was, was.body)); err != nil {
			t.Errorf("renewing too late: %v", err)
		}
		if now, err := b.store.get(kindAccount, a.id); err != nil || string(now.body) != string(changed.body) {
			t.Errorf("the changed password was overwritten (%v)", err)
		}
		c.ask("#rmlogin", "@status 0")
		if err := b.store.swap(was, changed.body); err != nil {
			t.Errorf("renewing a deleted account: %v", err)
		}
		if _, err := b.store.get(kindAccount, a.id); !isStatus(err, statusNotFound) {
			t.Errorf("the deleted account is back: %v", err)
		}
	})
}

// TestRenewalsAreBounded: where too many wait, a login does not wait for a place.
func TestRenewalsAreBounded(t *testing.T) {
	t.Parallel()
	srv := &server{rounds: 32, renewals: make(chan renewal, maxRenewals)}
	srv.live.Store(&config{})
	for range maxRenewals + 5 {
		srv.renewLater(&account{}, &accountBody{verifier: &verifier{rounds: 16}}, "pw")
	}
	srv.renewLater(&account{}, &accountBody{verifier: &verifier{rounds: 32}}, "pw")
	if n := len(srv.renewals); n != maxRenewals {
		t.Errorf("%d wait, want %d", n, maxRenewals)
	}
}

// TestDecoyCostsTheSame: a password for an unknown name is held against as many
// rounds as new accounts have.
func TestDecoyCostsTheSame(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	srv.member("alice")
	if got := srv.storedRounds(t, "alice"); srv.decoy.rounds != got || len(srv.decoy.salt) != saltBytes {
		t.Errorf("the decoy has %d rounds, a new account %d", srv.decoy.rounds, got)
	}
}
