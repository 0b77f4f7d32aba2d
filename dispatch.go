package main

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"homeroom/store"
)

// access is who may use a command.
type access uint8

const (
	forAll access = iota
	forUsers
	forAccounts
	forAdmins
)

// command is one row of the command table. It drives dispatch, the checks that
// all commands share, and #help.
type command struct {
	name   string // as help shows it, with its #
	args   string
	help   string
	who    access
	least  int  // words after the command
	most   int  // anyNumber: the handler checks
	text   bool // the last word is free text: more words are joined to it
	run    func(*session, []string, *reply) error
	host   bool // the operator on the control socket may use it too, who is in no room
	posted bool // lines of text follow: the session takes them before it runs anything
	waits  bool // it may wait for the disk or for a password's hash
	login  bool // its failures are refused logins
	audit  int  // it is logged, with so many of its words at the most; 0: it is not

	// for people
	slash string                    // the word that they have for it; "": none
	row   func(cells []cell) string // a row of its reply
	done  func(*session) string     // what they hear when it was done; nil: nothing

	countAt int // the word of its @ret line that counts the lines after it; 0: none come
}

const anyNumber = -1

// check applies the rules that all commands share and returns the words that
// the handler gets.
func (c *command) check(s *session, words []string) ([]string, error) {
	i := s.who.Load()
	if c.who > forAll && i == nil {
		return nil, fail(statusNoLogin)
	}
	if c.who == forAdmins && !i.isAdmin() {
		return nil, s.refuseAdmin(c)
	}
	if c.who > forAll && s.srv.bans.suspended.Load() != nil && !i.isAdmin() {
		return nil, fail(statusSuspended)
	}
	if i != nil && i.host && !c.host || c.who == forAccounts && i.account == nil {
		return nil, fail(statusNoGuests)
	}
	if c.text && len(words) > c.most {
		words[c.most-1] = strings.Join(words[c.most-1:], " ")
		words = words[:c.most]
	}
	if c.most != anyNumber && (len(words) < c.least || len(words) > c.most) {
		return nil, fail(statusBadArgs)
	}
	return words, nil
}

// findCommand looks a line's first word up without regard to case.
func (srv *server) findCommand(word string) *command {
	if c := srv.commands[word]; c != nil {
		return c
	}
	return srv.commands[strings.ToLower(word)]
}

// command looks a command up, checks what all commands share, runs it and
// answers.
func (s *session) command(words []string, r *reply) error {
	c := s.srv.findCommand(words[0])
	r.command = c
	args := words[1:]
	if s.putOut.Load() != nil {
		if err := s.goHome(); err != nil {
			return err
		}
	}
	err := s.spend()
	if c != nil && c.posted && !isFatal(err) {
		if err == nil {
			_, err = c.check(s, args)
		}
		before := s.post
		if err = s.startPost(args, err); s.post != before {
			return nil
		}
		return s.answer(err, r)
	}
	if err == nil && c == nil {
		err = fail(statusNoCommand)
	}
	if err == nil {
		if args, err = c.check(s, args); err == nil {
			if c.waits {
				s.flush()
			}
			err = s.run(c, args, r)
		}
	}
	if err != nil && c != nil && c.login {
		s.srv.counts.refusedLogins.Add(1)
	}
	return s.finish(err, r)
}

// finish answers, and then lets happen what must not before.
func (s *session) finish(err error, r *reply) error {
	then := r.then
	r.then = nil
	if err := s.answer(err, r); err != nil {
		return err
	}
	if then != nil {
		s.flush()
		then()
	}
	return nil
}

// run runs a command's handler. A fault in it is the command's failure, and no
// more.
func (s *session) run(c *command, args []string, r *reply) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("a fault in %s: %v\n%s", c.name, fault, debug.Stack())
		}
	}()
	who := s.shownName()
	err = c.run(s, args, r)
	if err == nil && c.audit > 0 {
		s.audit(c, who, args)
	}
	return err
}

// statusOf is how a failure that is no status of its own is shown. Those that the
// operator should hear of keep their cause.
func statusOf(err error) *replyError {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return &replyError{code: statusNotFound}
	case errors.Is(err, store.ErrFull):
		return &replyError{code: statusLimit, cause: err}
	case errors.Is(err, store.ErrBroken): // which is in the log already
		return &replyError{code: statusUnknown}
	}
	return &replyError{code: statusUnknown, cause: err}
}
