package main

import (
	"github.com/sallyport-sts/sallyport/brokers"
	awsbroker "github.com/sallyport-sts/sallyport/brokers/aws"
	azurebroker "github.com/sallyport-sts/sallyport/brokers/azure"
	gcpbroker "github.com/sallyport-sts/sallyport/brokers/gcp"
	githubbroker "github.com/sallyport-sts/sallyport/brokers/github"
	"github.com/sallyport-sts/sallyport/brokers/jwt"
	kubernetesbroker "github.com/sallyport-sts/sallyport/brokers/kubernetes"
	"github.com/sallyport-sts/sallyport/brokers/mysql"
	"github.com/sallyport-sts/sallyport/brokers/postgres"
	"github.com/sallyport-sts/sallyport/brokers/redis"
	"github.com/sallyport-sts/sallyport/brokers/vault"
	"github.com/sallyport-sts/sallyport/issuers"
	"github.com/sallyport-sts/sallyport/issuers/github"
	"github.com/sallyport-sts/sallyport/issuers/gitlab"
	"github.com/sallyport-sts/sallyport/issuers/kubernetes"
	"github.com/sallyport-sts/sallyport/issuers/oidc"
	"github.com/sallyport-sts/sallyport/sts/config"
)

// kinds lists every platform and every kind of credential that this binary knows. A new one is one line.
func kinds() (config.Kinds, error) {
	is, err := issuers.NewSet(
		kubernetes.Kind(),
		github.Kind(),
		gitlab.Kind(),
		oidc.Kind(),
	)
	if err != nil {
		return config.Kinds{}, err
	}
	bs, err := brokers.NewSet(
		awsbroker.Kind(),
		azurebroker.Kind(),
		gcpbroker.Kind(),
		githubbroker.Kind(),
		jwt.Kind(),
		kubernetesbroker.Kind(),
		mysql.Kind(),
		postgres.Kind(),
		redis.Kind(),
		vault.Kind(),
	)
	if err != nil {
		return config.Kinds{}, err
	}
	return config.Kinds{Issuers: is, Brokers: bs, Vault: func(v config.Vault) []brokers.Problem { return transitSettings(v).Check() }}, nil
}
