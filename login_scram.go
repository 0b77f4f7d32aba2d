package main

import (
	"encoding/base64"
	"errors"
	"strconv"
)

// cmdAuth is `#auth SCRAM-SHA-256 "<client-first>"`, then `#auth "<client-final>"`:
// a login in which no password crosses the network, so it may come from anywhere.
func (s *session) cmdAuth(words []string, r *reply) error {
	begun := s.exchange
	s.exchange = nil // whatever comes of this step, that one is over
	if len(words) == 2 {
		return s.beginAuth(words[0], words[1], r)
	}
	m, ok := parseClientFinal(words[0])
	if !ok || begun == nil {
		return fail(statusBadArgs)
	}
	if err := s.srv.accounts.guesses.allow(s.source()); err != nil {
		return err
	}
	answer, ok := begun.finish(m)
	if !ok || begun.account.changes.Load() != begun.changes {
		s.srv.accounts.guesses.wrong(s.source())
		return fail(statusWrongPassword)
	}
	err := s.become(&identity{name: begun.account.name, account: begun.account, changes: begun.changes})
	if isStatus(err, statusNoAccount) { // deleted since the first step
		return fail(statusWrongPassword)
	}
	r.ret("auth", quoted(answer))
	return err
}

// beginAuth is the first step.
func (s *session) beginAuth(mechanism, message string, r *reply) error {
	m, ok := parseClientFirst(message)
	if !ok || mechanism != scramMechanism {
		return fail(statusBadArgs)
	}
	if err := s.srv.accounts.guesses.allow(s.source()); err != nil {
		return err
	}
	x, err := s.srv.newExchange(m.user)
	if err != nil {
		return err
	}
	answer := x.begin(m, base64.StdEncoding.EncodeToString(randomBytes(nonceBytes)))
	s.exchange = x
	r.ret("auth", quoted(answer))
	return nil
}

// newExchange finds what an exchange for a name checks proofs with. For a name
// that nobody has, it is made up, and takes as long.
func (srv *server) newExchange(user string) (*exchange, error) {
	a := srv.findAccount(user)
	if a == nil {
		srv.readNobody()
		return &exchange{verifier: srv.accounts.madeUp(user)}, nil
	}
	changes := a.changes.Load()
	stored, err := srv.readAccount(a)
	if errors.Is(err, errNotFound) { // deleted just now
		return &exchange{verifier: srv.accounts.madeUp(user)}, nil
	}
	if err != nil {
		return nil, err
	}
	return &exchange{account: a, changes: changes, verifier: stored.verifier}, nil
}

// readNobody looks into the store for an account that is not there, because a
// name that somebody has costs a look too.
func (srv *server) readNobody() { _, _ = srv.store.get(kindAccount, 0) }

// nonceBytes is how much chance the server puts into an exchange.
const nonceBytes = 18

// scramMechanism is the one way that #auth knows (RFC 7677).
const scramMechanism = "SCRAM-SHA-256"

// exchange is a SCRAM login between its two steps (RFC 5802 section 5).
type exchange struct {
	header      string    // the GS2 header of the client's first message
	nonce       string    // the client's part and the server's
	authMessage string    // what was said so far, as both sides sign it
	verifier    *verifier // made up where nobody has the name
	account     *account  // nil: nobody has the name
	changes     int64     // of the account's password, when the verifier was read
}

// begin answers a client's first message with the server's, "r=nonce,s=salt,i=rounds".
func (x *exchange) begin(m clientFirst, chance string) (serverFirst string) {
	x.header, x.nonce = m.header, m.nonce+chance
	serverFirst = "r=" + x.nonce + ",s=" + base64.StdEncoding.EncodeToString(x.verifier.salt) +
		",i=" + strconv.Itoa(x.verifier.rounds)
	x.authMessage = m.bare + "," + serverFirst
	return serverFirst
}

// finish answers a client's second message with the server's, "v=signature". ok
// is false where it does not belong to this exchange or does not prove that the
// client knows the password.
func (x *exchange) finish(m clientFinal) (serverFinal string, ok bool) {
	signed := x.authMessage + "," + m.withoutProof
	proved := x.verifier.proves(m.proof, signed) // whatever the rest says, so that the time tells nothing
	ok = proved && m.header == x.header && m.nonce == x.nonce && x.account != nil
	return "v=" + base64.StdEncoding.EncodeToString(x.verifier.signature(signed)), ok
}
