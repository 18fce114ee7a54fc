package binarycache

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"net"
	"time"
)

// jitter spreads clients that failed together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// permanentFailure says whether a request that failed with err, without an
// answer, would fail again. What is not known is tried again.
func permanentFailure(err error) bool {
	if errors.Is(err, errRedirect) {
		return true
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
		return true
	}
	var (
		verification *tls.CertificateVerificationError
		record       tls.RecordHeaderError
		authority    x509.UnknownAuthorityError
		hostname     x509.HostnameError
	)
	return errors.As(err, &verification) || errors.As(err, &record) || errors.As(err, &authority) || errors.As(err, &hostname)
}
