package main

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxRounds  = 600_000                // more costs the server more than a thief
	minRounds  = 15_000                 // what calibration goes down to on a slow machine
	roomRounds = 4096                   // of the passwords of rooms and groups (RFC 7677 section 4)
	hashTime   = 250 * time.Millisecond // what one check of an account's password is to cost
	saltBytes  = 16
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
	salt := make([]byte, saltBytes)
	if _, err := rand.Read(salt); err != nil {
		return nil, fmt.Errorf("making a salt: %w", err)
	}
	return makeVerifier(password, salt, rounds)
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
		if *field, err = base64.StdEncoding.DecodeString(parts[i+2]); err != nil {
			return bad()
		}
	}
	return v, nil
}

// hashQueuePerCore is how many may wait for a core to hash on, 250 ms each.
const hashQueuePerCore = 16

// hasher lets one password be hashed on each core at a time, a few wait, and
// refuses the rest, so that logins never take the machine away from the chat.
type hasher struct {
	cores   chan struct{}
	waiting atomic.Int64
}

func newHasher() *hasher {
	return &hasher{cores: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// do runs hash when a core is free. It fails with 3006 when too many wait.
func (h *hasher) do(hash func()) error {
	if h.waiting.Add(1) > int64(cap(h.cores))*(hashQueuePerCore+1) {
		h.waiting.Add(-1)
		return fail(statusThrottled)
	}
	h.cores <- struct{}{}
	defer func() {
		<-h.cores
		h.waiting.Add(-1)
	}()
	hash()
	return nil
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
