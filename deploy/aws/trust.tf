resource "aws_iam_openid_connect_provider" "sallyport" {
  url            = "https://sts.example/assertions"
  client_id_list = ["sts.amazonaws.com"]
}

# A role for this target alone. What it may do are its own policies; sessions are bounded by their scopes.
resource "aws_iam_role" "orders" {
  path                 = "/"
  name                 = "orders"
  max_session_duration = 3600
  assume_role_policy   = <<-EOT
    {
      "Statement": [
        {
          "Action": [
            "sts:AssumeRoleWithWebIdentity",
            "sts:TagSession",
            "sts:SetSourceIdentity"
          ],
          "Condition": {
            "StringEquals": {
              "sts.example/assertions:aud": "sts.amazonaws.com",
              "sts.example/assertions:sub": "sallyport:orders-bucket"
            }
          },
          "Effect": "Allow",
          "Principal": {
            "Federated": "arn:aws:iam::123456789012:oidc-provider/sts.example/assertions"
          }
        }
      ],
      "Version": "2012-10-17"
    }
  EOT
}

# The role that denies revoked sessions: it writes inline policies of that role, and can do nothing else.
resource "aws_iam_role" "sallyport_revoker" {
  path                 = "/"
  name                 = "sallyport-revoker"
  max_session_duration = 3600
  assume_role_policy   = <<-EOT
    {
      "Statement": [
        {
          "Action": [
            "sts:AssumeRoleWithWebIdentity"
          ],
          "Condition": {
            "StringEquals": {
              "sts.example/assertions:aud": "sts.amazonaws.com",
              "sts.example/assertions:sub": "sallyport-revoker:orders-bucket"
            }
          },
          "Effect": "Allow",
          "Principal": {
            "Federated": "arn:aws:iam::123456789012:oidc-provider/sts.example/assertions"
          }
        }
      ],
      "Version": "2012-10-17"
    }
  EOT
}

resource "aws_iam_role_policy" "sallyport_revoker" {
  name   = "sallyport-revoker"
  role   = aws_iam_role.sallyport_revoker.id
  policy = <<-EOT
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Effect": "Allow",
          "Action": [
            "iam:ListRolePolicies",
            "iam:GetRolePolicy",
            "iam:PutRolePolicy",
            "iam:DeleteRolePolicy"
          ],
          "Resource": "arn:aws:iam::123456789012:role/orders"
        }
      ]
    }
  EOT
}
