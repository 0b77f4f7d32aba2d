package main

import (
	"crypto/md5"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"strings"
)

const (
	challengeBytes = 16     // how much chance is in a challenge
	challengeMark  = "md5:" // what an answer to one starts with
)

// cmdChallenge is "#challenge": a random word for a login without the password
// in clear, as clients of the original server do it. Only the last one counts.
func (s *session) cmdChallenge(_ []string, r *reply) error {
	if !s.srv.settings().Auth.ChallengeMD5 {
		return fail(statusDisabled)
	}
	s.challenge = hex.EncodeToString(randomBytes(challengeBytes))
	r.ret("challenge", word(s.challenge))
	return nil
}

// answersChallenge takes the session's challenge, if a login's password is an
// answer to it. Each challenge is good for one login, right or wrong.
func (s *session) answersChallenge(password string) (challenge string, sum []byte, ok bool) {
	challenge, s.challenge = s.challenge, ""
	text, marked := strings.CutPrefix(password, challengeMark)
	sum, err := hex.DecodeString(text)
	return challenge, sum, marked && err == nil && len(sum) == md5.Size && challenge != ""
}

// loginByChallenge checks an answer to a challenge and makes the session that
// account. An account that has no recoverable password cannot log in this way.
func (s *session) loginByChallenge(word, challenge string, sum []byte) error {
	if err := s.srv.accounts.guesses.allow(s.source()); err != nil {
		return err
	}
	a := s.srv.findAccount(word)
	if a == nil {
		s.srv.readNobody()
		s.srv.accounts.guesses.wrong(s.source())
		return fail(statusNoAccount)
	}
	changes := a.changes.Load()
	stored, err := s.srv.readAccount(a)
	if errors.Is(err, errNotFound) {
		return fail(statusNoAccount)
	}
	if err != nil {
		return err
	}
	if !stored.answers(challenge, sum) || a.changes.Load() != changes {
		s.srv.accounts.guesses.wrong(s.source())
		return fail(statusWrongPassword)
	}
	return s.become(&identity{name: a.name, account: a, changes: changes})
}

// answers checks, in constant time, an answer to a challenge.
func (b *accountBody) answers(challenge string, sum []byte) bool {
	want := md5.Sum([]byte(challenge + b.recoverable))
	return b.recoverable != "" && subtle.ConstantTimeCompare(want[:], sum) == 1
}

// toRecover is what is kept of a prepared password beside its verifier: nothing,
// unless the settings allow #challenge, which needs the password itself.
func (srv *server) toRecover(password string) string {
	if !srv.settings().Auth.ChallengeMD5 {
		return ""
	}
	return password
}
