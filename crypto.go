package main

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	maxRounds   = 600_000                // more costs the server more than a thief
	minRounds   = 15_000                 // what calibration goes down to on a slow machine
	roomRounds  = 4096                   // of the passwords of rooms and groups (RFC 7677 section 4)
	hashTime    = 250 * time.Millisecond // what one check of an account's password is to cost
	saltBytes   = 16
	secretBytes = 32 // of what made-up salts come from
)

// verifier is what is kept of a password: enough to check it and to run
// SCRAM-SHA-256 with it (RFC 5802 section 3, RFC 7677), not enough to log in.
type verifier struct {
	salt      []byte
	rounds    int
	storedKey []byte
	serverKey []byte
}

// newVerifier hashes a prepared password with a fresh salt. It costs rounds.
func newVerifier(password string, rounds int) (*verifier, error) {
	return makeVerifier(password, randomBytes(saltBytes), rounds)
}

// makeVerifier computes StoredKey and ServerKey (RFC 5802 section 3).
func makeVerifier(password string, salt []byte, rounds int) (*verifier, error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, rounds, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("hashing a password: %w", err)
	}
	stored := sha256.Sum256(hmacSHA256(salted, "Client Key"))
	return &verifier{
		salt: salt, rounds: rounds,
		storedKey: stored[:], serverKey: hmacSHA256(salted, "Server Key"),
	}, nil
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails (crypto/rand)
	return b
}

func hmacSHA256(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// matches checks a prepared password in constant time. It costs v.rounds.
func (v *verifier) matches(password string) bool {
	other, err := makeVerifier(password, v.salt, v.rounds)
	return err == nil && subtle.ConstantTimeCompare(v.storedKey, other.storedKey) == 1
}

// String is the form of RFC 5803: SCRAM-SHA-256$rounds:salt$stored:server.
func (v *verifier) String() string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", v.rounds, b64(v.salt), b64(v.storedKey), b64(v.serverKey))
}

// packed is a verifier as it is stored; none is "".
func (v *verifier) packed() string {
	if v == nil {
		return ""
	}
	return v.String()
}

// proves checks, in constant time, a client's proof that it knows the password
// (RFC 5802 section 3). It costs next to nothing.
func (v *verifier) proves(proof []byte, authMessage string) bool {
	clientKey := make([]byte, sha256.Size)
	if subtle.XORBytes(clientKey, proof, hmacSHA256(v.storedKey, authMessage)) != len(clientKey) {
		return false
	}
	stored := sha256.Sum256(clientKey)
	return subtle.ConstantTimeCompare(v.storedKey, stored[:]) == 1
}

// signature is how the server shows that it knows the account too.
func (v *verifier) signature(authMessage string) []byte { return hmacSHA256(v.serverKey, authMessage) }

// parseVerifier reads what String wrote.
func parseVerifier(s string) (*verifier, error) {
	bad := func() (*verifier, error) { return nil, fmt.Errorf("reading a password verifier: bad form") }
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == '$' || r == ':' })
	if len(parts) != 5 || parts[0] != "SCRAM-SHA-256" {
		return bad()
	}
	rounds, err := strconv.Atoi(parts[1])
	if err != nil || rounds < 1 {
		return bad()
	}
	v := &verifier{rounds: rounds}
	for i, field := range []*[]byte{&v.salt, &v.storedKey, &v.serverKey} {
		if *field, err = base64.StdEncoding.DecodeString(parts[i+2]); err != nil || len(*field) == 0 {
			return bad()
		}
	}
	return v, nil
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
