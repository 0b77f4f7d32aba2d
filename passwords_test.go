package main

import (
	"bufio"
	"net"
	"sync"
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
	conn := &readingConn{Conn: mine}
	conn.wake = sync.NewCond(&conn.mu)
	go conn.pump()
	b.t.Cleanup(func() { conn.Close() })
	c := &client{t: b.t, conn: conn, in: bufio.NewReader(conn)}
	c.expect(`@mess #hello "Homeroom" "type #help for help"`)
	return c
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
		b.passwords <- struct{}{} // somebody else's is being stored
		alice.send("#changepass mine pw")
		synctest.Wait()
		host.send("#resetpass alice other")
		synctest.Wait()
		if n := b.findAccount("alice").changes.Load(); n != 0 {
			t.Errorf("%d changes were made while another one was being stored", n)
		}
		<-b.passwords
		alice.expect("@status 0", `@mess #warning "your password was changed by Host"`)
		host.expect("@status 0")
		b.dial().ask("#login regd alice mine", "@status 3002")
		b.dial().ask("#login regd alice other", "@status 0")
	})
}
