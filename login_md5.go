package main

import (
	"crypto/md5"
	"encoding/hex"
	"strings"
)

const (
	challengeBytes = 16     // of random data in a challenge
	challengeMark  = "md5:" // begins an answer to one
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

// toRecover returns the part of a prepared password that is kept beside its verifier:
// nothing, unless the settings allow #challenge, which needs the password itself.
func (srv *server) toRecover(password string) string {
	if !srv.settings().Auth.ChallengeMD5 {
		return ""
	}
	return password
}

// answers reports whether a sum is the account's answer to a challenge. An account
// without a recoverable password, or with one that is never right, has none.
func (b *accountBody) answers(challenge string, sum []byte) bool {
	_, err := preparePassword(b.recoverable)
	return err == nil && md5Proves(challenge, b.recoverable, sum)
}
