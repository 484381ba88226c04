package bucket

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// firstDelay is the pause after the first failure; it doubles up to MaxDelay.
const firstDelay = 250 * time.Millisecond

// retry makes a request until it succeeds, is refused, or was made often
// enough. what names it for those who watch. Each request is one that may be
// made twice: it reads, is conditional, or has the same effect again.
func (b *Bucket) retry(ctx context.Context, what string, try func(ctx context.Context) error) error {
	renewed := false
	for attempt := 1; ; attempt++ {
		used := b.service.credential(ctx)
		err := try(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return stopped(ctx, err)
		}
		if isExpired(err) && !renewed {
			var failed error
			if renewed, failed = b.service.renew(ctx, used); failed != nil {
				return errors.Join(err, failed)
			}
			if renewed {
				b.options.Warn(fmt.Sprintf("%s: the credential had expired and was renewed", what))
				continue
			}
		}
		var end *finalError
		if !isTransient(err) || errors.As(err, &end) {
			return err
		}
		if attempt >= b.options.Attempts {
			return fmt.Errorf("given up after %d attempts: %w", attempt, err)
		}
		if err := b.pause(ctx, what, attempt, err); err != nil {
			return err
		}
	}
}

// stopped prefers why the context ended to how the request noticed.
func stopped(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); !errors.Is(err, cause) {
		return cause
	}
	return err
}

func (b *Bucket) pause(ctx context.Context, what string, attempt int, err error) error {
	delay := b.options.MaxDelay
	if attempt < 16 {
		delay = min(delay, firstDelay<<(attempt-1))
	}
	delay = delay/2 + rand.N(delay/2+1) //nolint:gosec // spreads load, protects nothing
	b.options.Warn(fmt.Sprintf("%s: attempt %d of %d failed, the next follows in %s: %s",
		what, attempt, b.options.Attempts, delay.Round(time.Millisecond), concealed(err)))
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// transientCodes are answers that say nothing about the request itself. Damage
// on the way is among them: what is sent again arrives whole.
var transientCodes = map[string]bool{
	"BadDigest":                   true,
	"ClientDisconnected":          true,
	"ConditionalRequestConflict":  true, // another writer of the key is at work
	"ExistingObjectIsDirectory":   true, // versitygw, when a delete empties the folder meanwhile
	"IncompleteBody":              true,
	"InternalError":               true,
	"InvalidDigest":               true,
	"Md5Mismatch":                 true,
	"Crc64Mismatch":               true,
	"OperationAborted":            true,
	"RequestTimeTooSkewed":        true, // the library corrects its clock by the answer
	"RequestTimeout":              true,
	"SlowDown":                    true,
	"Throttling":                  true,
	"XAmzContentChecksumMismatch": true,
	"XAmzContentSHA256Mismatch":   true,
}

func isTransient(err error) bool {
	if err == nil {
		return false
	}
	status, code := answerOf(err)
	switch {
	case transientCodes[code]:
		return true
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests:
		return true
	case status == http.StatusNotImplemented, status == http.StatusInsufficientStorage:
		return false
	case status >= 500:
		return true
	case status >= 300:
		return false
	case status >= 200:
		return true // the answer could not be read to its end
	}
	return isNetwork(err)
}

// isUnknownHost says that there is no host of the service's name. Asking again is
// in vain: a resolver that is away says something else.
func isUnknownHost(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// isNetwork says that an error without an answer is one of the network, and not
// one that was there before anything was sent.
func isNetwork(err error) bool {
	var dns *net.DNSError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &dns):
		return !dns.IsNotFound
	case errors.As(err, &unknown), errors.As(err, &host), errors.As(err, &invalid):
		return false
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return true
	}
	var network net.Error // also url.Error, which wraps whatever a transport says
	return errors.As(err, &network)
}

// isExpired says that a credential was right once.
func isExpired(err error) bool {
	switch _, code := answerOf(err); code {
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired":
		return true
	}
	return false
}
