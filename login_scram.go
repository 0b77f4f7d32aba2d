package main

import (
	"encoding/base64"
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
	name := ""
	if begun != nil {
		name = begun.name
	}
	return s.noteFailure(name, s.finishAuth(words, begun, r))
}

// finishAuth is the second step.
func (s *session) finishAuth(words []string, begun *exchange, r *reply) error {
	m, ok := parseClientFinal(words[0])
	if !ok || begun == nil {
		return fail(statusBadArgs)
	}
	var answer string
	if err := s.srv.refuseAddress(s); err != nil {
		return err
	}
	release := s.srv.doorway.admission.hold(&s.ticket)
	err := s.srv.accounts.login(s.tryAt(begun.name, begun.who), func() (right bool, _ error) {
		answer, right = begun.finish(m)
		return right && begun.who.outdated() == nil, nil
	})
	release()
	if err == nil {
		err = s.become(begun.who)
	}
	switch {
	case err == nil:
		r.ret("auth", quoted(answer))
	case isStatus(err, statusNoAccount): // deleted since the first step
		return fail(statusWrongPassword)
	}
	return err
}

// beginAuth is the first step.
func (s *session) beginAuth(mechanism, message string, r *reply) error {
	m, ok := parseClientFirst(message)
	if !ok || mechanism != scramMechanism {
		return fail(statusBadArgs)
	}
	if err := s.srv.refuseAddress(s); err != nil {
		return s.noteFailure(m.user, err)
	}
	i, stored, err := s.srv.candidate(m.user)
	if err != nil {
		return err
	}
	if err := s.srv.accounts.mayTry(s.tryAt(m.user, i)); err != nil {
		return s.noteFailure(m.user, err)
	}
	s.exchange = &exchange{name: m.user, who: i, verifier: stored.verifier}
	r.ret("auth", quoted(s.exchange.begin(m, base64.StdEncoding.EncodeToString(randomBytes(nonceBytes)))))
	return nil
}

// nonceBytes is how many random bytes the server puts into an exchange.
const nonceBytes = 18

// scramMechanism is the only mechanism of #auth (RFC 7677).
const scramMechanism = "SCRAM-SHA-256"

// exchange is a SCRAM login between its two steps (RFC 5802 section 5).
type exchange struct {
	name        string    // the account's, as it was given
	header      string    // the GS2 header of the client's first message
	nonce       string    // the client's part and the server's
	authMessage string    // what was said so far, as both sides sign it
	verifier    *verifier // made up where nobody has the name
	who         *identity // whom it makes the session; nil: nobody has the name
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
// reports whether that message belongs to this exchange and proves that the client
// knows the password.
func (x *exchange) finish(m clientFinal) (serverFinal string, ok bool) {
	signed := x.authMessage + "," + m.withoutProof
	proved := x.verifier.proves(m.proof, signed) // whatever the rest says, so that the time tells nothing
	ok = proved && m.header == x.header && m.nonce == x.nonce && x.who != nil
	return "v=" + base64.StdEncoding.EncodeToString(x.verifier.signature(signed)), ok
}
