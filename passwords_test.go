package main

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// lateStore is a store that, while late is set, gives what it has read of an account
// only after a word from the test: by then it may be out of date.
type lateStore struct {
	store
	late atomic.Bool
	now  chan struct{}
}

func (s *lateStore) get(k kind, id int64) (record, error) {
	r, err := s.store.get(k, id)
	if s.late.CompareAndSwap(true, false) {
		<-s.now
	}
	return r, err
}

// lateReads has a bubble's server read accounts from a lateStore.
func (b *bubble) lateReads() *lateStore {
	synctest.Wait() // until nobody uses the store
	late := &lateStore{store: b.store, now: make(chan struct{})}
	b.store = late
	return late
}

// dialHost connects to a bubble's server as the machine's operator.
func (b *bubble) dialHost() *client {
	b.t.Helper()
	mine, servers := net.Pipe()
	b.serveHost(servers)
	return b.greeted(mine)
}

// TestResetBeatsChange: who was about to change the password when an administrator
// gave the account another one does not undo that.
func TestResetBeatsChange(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b.guest("bob").ask("#createlogin alice pw real mail", "@status 0")
		late, thief, host := b.lateReads(), b.dial(), b.dialHost()
		thief.ask("#login regd alice pw", "@status 0")
		late.late.Store(true)
		thief.send("#changepass mine pw")
		synctest.Wait()
		host.ask("#resetpass alice other", "@status 0")
		late.now <- struct{}{}
		synctest.Wait()
		c := b.dial()
		c.ask("#login regd alice mine", "@status 3002")
		c.ask("#login regd alice pw", "@status 3002")
		c.ask("#login regd alice other", "@status 0")
	})
}

// TestChangesOfPasswordsInTurn: while one new password is being stored another waits,
// so that the one that is answered last is the one that holds.
func TestChangesOfPasswordsInTurn(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b.guest("bob").ask("#createlogin alice pw real mail", "@status 0")
		alice, host := b.dial(), b.dialHost()
		alice.ask("#login regd alice pw", "@status 0")
		release := b.passwords.take() // somebody else's is being stored
		alice.send("#changepass mine pw")
		synctest.Wait()
		host.send("#resetpass alice other")
		synctest.Wait()
		if n := b.findAccount("alice").changes.Load(); n != 0 {
			t.Errorf("%d changes were made while another one was being stored", n)
		}
		release()
		alice.expect("@status 0", `@mess #warning "your password was changed by Host"`)
		host.expect("@status 0")
		b.dial().ask("#login regd alice mine", "@status 3002")
		b.dial().ask("#login regd alice other", "@status 0")
	})
}

// TestLoginWaitsPastReset: a login waits for the account's earlier session to end; when
// the password is changed meanwhile, or the account deleted, it is wrong after all.
func TestLoginWaitsPastReset(t *testing.T) {
	t.Parallel()
	for change, want := range map[string]string{"#resetpass alice other": "@status 3002", "#rmuser alice": "@status 3001"} {
		for how, login := range map[string]func(*client) string{
			"by password": func(c *client) string {
				c.send("#login regd alice pw")
				return want
			},
			"by challenge": func(c *client) string {
				c.send("#login regd alice " + c.challenged("pw"))
				return want
			},
			"by SCRAM": func(c *client) string {
				talk := scramTalk(c.t, "alice", "pw")
				final, err := talk.Step(c.firstStep(talk))
				if err != nil {
					c.t.Fatal(err)
				}
				c.send("#auth " + final)
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
func (b *bubble) loginWaits(change string, login func(*client) string) {
	b.t.Helper()
	b.guest("bob").ask("#createlogin alice pw real mail", "@status 0")
	first, second, host := b.dial(), b.guest("carol"), b.dialHost()
	first.ask("#login regd alice pw", "@status 0")
	release := b.doors.hold()
	first.send("#createroom den sesame") // its password waits for a core
	synctest.Wait()
	want := login(second)
	synctest.Wait()
	host.ask(change, "@status 0")
	release()
	second.expect(want)
	second.ask("#whoami", "@ret #whoami carol Home 2 - 0") // a login that fails changes nothing
	if b.findOnline("alice") != nil {
		b.t.Error("somebody has the account's name")
	}
}

// TestResetAtTheLastMoment: the password is changed after a login has looked at it for
// the last time before it has its name. Who changes it sees nobody to disconnect, so
// the login has to see it.
func TestResetAtTheLastMoment(t *testing.T) {
	t.Parallel()
	for change, want := range map[string]string{"#resetpass alice other": "@status 3002", "#rmuser alice": "@status 3001"} {
		t.Run(change, func(t *testing.T) {
			t.Parallel()
			ts := startServer(t)
			ts.guest("bob").ask("#createlogin alice pw real mail", "@status 0")
			host, c := ts.dialHost(), ts.guest("carol")
			c.ask("#createroom den", "@status 0")
			c.ask("#changeroom den", "@status 0")
			c.ask(`#creategroup news "" anon`, "@status 0")
			c.ask("#joingroup news", "@status 0")
			s := ts.findOnline("carol")
			den := s.room()
			den.mu.Lock() // the login cannot leave the room; it has left the group by then
			c.send("#login regd alice pw")
			until(t, "carol leaves the group", func() bool { return s.group() == nil })
			host.ask(change, "@status 0")
			den.mu.Unlock()
			c.expect(want)
			c.ask("#whoami", "@status 3500")
			ts.guest("carol")
		})
	}
}
