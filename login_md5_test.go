package main

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

// withChallenge switches #challenge on.
func withChallenge(cfg *config) { cfg.Auth.ChallengeMD5 = true }

// TestChallengeMD5: the sum is over the random word with the password behind it.
func TestChallengeMD5(t *testing.T) {
	t.Parallel()
	b := accountBody{recoverable: "secret"}
	sum, err := hex.DecodeString("1c9169ec8ee891709c6db474cdf6792f") // printf 12345678secret | md5sum
	if err != nil || !b.answers("12345678", sum) {
		t.Error("the right answer is refused")
	}
	if b.answers("12345679", sum) || b.answers("12345678", sum[:15]) {
		t.Error("a wrong answer is taken")
	}
	sum, _ = hex.DecodeString("25d55ad283aa400af464c76d713c07ad") // printf 12345678 | md5sum
	if none := (accountBody{}); none.answers("12345678", sum) {
		t.Error("an account without a recoverable password has an answer")
	}
}

// TestChallenge logs in by a challenge, from where no password may come from.
func TestChallenge(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b.guest("bob").Ask(`#createlogin Alice "pass word é" real mail`, "@status 0")
		c := b.dialFrom("203.0.113.9")
		c.Ask("#login regd alice "+c.Challenged("wrong"), "@status 3002")
		c.Ask("#login regd nobody "+c.Challenged("pw"), "@status 3001")
		answer := c.Challenged("pass word é")
		c.Ask("#login regd ALICE "+strings.ToUpper(answer[:4])+answer[4:], "@status 3508") // no answer: a password
		c.Ask("#login regd alice "+answer, "@status 3508")                                 // the challenge was used
		old := c.Challenged("pass word é")
		newest := c.Challenged("pass word é")
		c.Ask("#login regd alice "+old, "@status 3002")
		c.Ask("#login regd alice "+newest, "@status 3508")
		answer = c.Challenged("pass word é")
		c.Ask("#login regd ALICE md5:"+strings.ToUpper(answer[4:]), "@status 0")
		c.Ask("#whoami", "@ret #whoami Alice Home 2 - 0")
		c.Ask("#version", "@ret #version 0.03 homeroom/"+version+" admin auth challenge events help owners ping quit")
		b = b.restart(time.Second)
		c = b.dial()
		c.Ask("#login regd alice "+c.Challenged("pass word é"), "@status 0")
		c.Ask(`#changepass new "pass word é"`, "@status 0")
		c.Ask("#login regd alice "+c.Challenged("pass word é"), "@status 3002")
		c.Ask("#login regd alice "+c.Challenged("new"), "@status 0")
	}, withChallenge)
}

// TestChallengeNeedsNewPassword: an account from before the setting was on has
// nothing to recover, until it gets a new password.
func TestChallengeNeedsNewPassword(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b.guest("bob").Ask("#createlogin alice pw real mail", "@status 0")
		b.cfg.Auth.ChallengeMD5 = true
		b = b.restart(time.Second)
		c := b.dial()
		c.Ask("#login regd alice pw", "@status 0")
		c.Ask("#login regd alice "+c.Challenged("pw"), "@status 3002")
		c.Ask("#login regd alice "+c.Challenged(""), "@status 3002")
		c.Ask("#changepass pw pw", "@status 0")
		c.Ask("#login regd alice "+c.Challenged("pw"), "@status 0")
	})
}

// TestChallengeSwitchedOff: the password that was kept for it goes at the next login.
func TestChallengeSwitchedOff(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b.guest("bob").Ask("#createlogin alice pw real mail", "@status 0")
		b.cfg.Auth.ChallengeMD5 = false
		b = b.restart(time.Second)
		c := b.dial()
		c.Ask("#challenge", "@status 3508")
		if stored, err := b.readAccount(b.findAccount("alice")); err != nil || stored.recoverable != "pw" {
			t.Fatalf("stored is %q (%v); this test would find nothing", stored.recoverable, err)
		}
		c.Ask("#login regd alice pw", "@status 0")
		b.pass(time.Minute)
		stored, err := b.readAccount(b.findAccount("alice"))
		if err != nil || stored.recoverable != "" || stored.realName != "real" || stored.email != "mail" {
			t.Errorf("stored is %+v (%v)", stored, err)
		}
		c.Ask("#login regd alice pw", "@status 0")
		c.Ask("#login regd alice wrong", "@status 3002")
	}, withChallenge)
}

// TestChallengeCountsGuesses: wrong answers count as wrong passwords do.
func TestChallengeCountsGuesses(t *testing.T) {
	t.Parallel()
	srv := startServer(t, withChallenge, func(c *config) { c.Limits.LoginsPerMinute, c.Limits.GuessesPerAccount = 3, 0 })
	srv.Guest("bob").Ask("#createlogin alice pw real mail", "@status 0")
	c := srv.Dial()
	for range 3 {
		c.Ask("#login regd alice "+c.Challenged("wrong"), "@status 3002")
	}
	c.Ask("#login regd alice "+c.Challenged("pw"), "@status 3006")
}
