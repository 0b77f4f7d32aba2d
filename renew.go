package main

import (
	"log/slog"
	"net/netip"
)

// maxRenewals bounds how many verifiers wait to be renewed.
const maxRenewals = 64

// renewal is an account that is to be stored anew, with the password that was
// just found right.
type renewal struct {
	account  *account
	stored   *accountBody // as it was found
	password string
}

// renewLater has an account's verifier made anew if it has too few rounds: the
// database may come from a slower machine. It also has a recoverable password
// forgotten that the settings allow no more. Nobody waits for it, and where too
// many wait already, the account's next login will do.
func (srv *server) renewLater(a *account, stored *accountBody, typed string) {
	keeps := stored.recoverable != "" && !srv.settings().Auth.ChallengeMD5
	if stored.verifier.rounds >= srv.rounds && !keeps {
		return
	}
	password, err := preparePassword(typed)
	if err != nil {
		return
	}
	select {
	case srv.renewals <- renewal{a, stored, password}:
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

// renew stores an account with a new verifier of the same password, unless the
// account has been changed or deleted meanwhile.
func (srv *server) renew(r renewal) error {
	renewed := *r.stored
	var err error
	if renewed.verifier, err = srv.hasher.newVerifier(netip.Prefix{}, r.password, srv.rounds); err != nil {
		return err
	}
	if !srv.settings().Auth.ChallengeMD5 {
		renewed.recoverable = ""
	}
	return srv.store.swap(bodyRecord(r.account.id, &renewed), r.stored.pack())
}
