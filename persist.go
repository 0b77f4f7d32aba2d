package main

import "errors"

// statusOf is how a failure that is no status of its own is shown. Those that the
// operator should hear of keep their cause.
func statusOf(err error) *replyError {
	switch {
	case errors.Is(err, errNotFound):
		return &replyError{code: statusNotFound}
	case errors.Is(err, errFull):
		return &replyError{code: statusLimit, cause: err}
	case errors.Is(err, errBroken): // which is in the log already
		return &replyError{code: statusUnknown}
	}
	return &replyError{code: statusUnknown, cause: err}
}
