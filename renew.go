package main

import "log/slog"

// maxRenewals bounds how many verifiers wait to be renewed.
const maxRenewals = 64

// renewal is an account whose verifier has fewer rounds than new ones get, with
// the password that was just found right.
type renewal struct {
	account  *account
	verifier *verifier
	password string
}

// renewLater has an account's verifier made anew if it has too few rounds: the
// database may come from a slower machine. Nobody waits for it, and where too
// many wait already, the account's next login will do.
func (srv *server) renewLater(a *account, v *verifier, typed string) {
	if v.rounds >= srv.rounds {
		return
	}
	password, err := preparePassword(typed)
	if err != nil {
		return
	}
	select {
	case srv.renewals <- renewal{a, v, password}:
	default:
	}
}

// renewVerifiers works off what waits, one after the other, so that it takes
// little from those who are logging in.
func (srv *server) renewVerifiers(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		select {
		case <-stop:
			return
		case r := <-srv.renewals:
			if err := srv.renew(r); err != nil && !isStatus(err, statusThrottled) && !isStatus(err, statusNotFound) {
				slog.Warn("cannot renew the password verifier of an account; its next login will try again",
					"account", r.account.id, "error", err)
			}
		}
	}
}

// renew stores a new verifier of the same password, unless the password has been
// changed or the account deleted meanwhile.
func (srv *server) renew(r renewal) error {
	v, err := srv.hasher.newVerifier(r.password, srv.rounds)
	if err != nil {
		return err
	}
	stored, err := srv.store.get(kindAccount, r.account.id)
	if err != nil {
		return err
	}
	fields, err := unpackFields(stored.body, 1)
	if err != nil || fields[0] != r.verifier.String() {
		return err
	}
	was := stored.body
	fields[0] = v.String()
	stored.body = packFields(fields...)
	return srv.store.swap(stored, was)
}
