data "azuread_application" "pay_vault" {
  client_id = "66666666-7777-8888-9999-000000000000"
}

resource "azuread_application_federated_identity_credential" "pay_vault" {
  application_id = data.azuread_application.pay_vault.id
  display_name   = "sallyport-pay_vault"
  issuer         = "https://sts.example/assertions"
  subject        = "sallyport:pay-vault"
  audiences      = ["api://AzureADTokenExchange"]
}
